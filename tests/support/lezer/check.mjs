// Parse LogQL: a JSON string a line comes in, a JSON object a line goes out (tests/support/logql.py says what is in it).
import { createInterface } from 'node:readline'
import { parser } from '@grafana/lezer-logql'

function parse(query) {
  const found = { kind: null, errors: [], selectors: [], fields: [], grouping: [], ranges: [] }
  const text = (node) => query.slice(node.from, node.to)
  const unquoted = (node) => (text(node)[0] === '"' ? JSON.parse(text(node)) : text(node).slice(1, -1))
  const within = (node, name) => node && (node.name === name || within(node.parent, name))

  parser.parse(query).iterate({
    enter({ node }) {
      if (node.type.isError) found.errors.push({ at: node.from, text: text(node) })
      else if (node.name === 'LogExpr') found.kind ??= 'log'
      else if (node.name === 'MetricExpr') found.kind ??= 'metric'
      else if (node.name === 'Selector') found.selectors.push([])
      else if (node.name === 'Range') found.ranges.push(text(node).slice(1, -1))
      else if (node.name === 'Identifier' && within(node, 'Grouping')) found.grouping.push(text(node))
      else if (node.name === 'Identifier' && within(node, 'LabelFilter')) found.fields.push(text(node))
      if (node.name === 'Matcher' && within(node, 'Selector')) {
        const [label, operator, value] = [node.firstChild, node.firstChild?.nextSibling, node.getChild('String')]
        if (value) found.selectors.at(-1).push({ label: text(label), operator: text(operator), value: unquoted(value) })
      }
    },
  })
  return found
}

for await (const line of createInterface({ input: process.stdin })) console.log(JSON.stringify(parse(JSON.parse(line))))
