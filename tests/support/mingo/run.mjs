// Evaluates MongoDB aggregation pipelines with mingo. One line in: extended JSON {documents, pipeline}; one line out.
import { createInterface } from "node:readline";
import { EJSON } from "bson";
import { Aggregator } from "mingo";
import "mingo/init/system";

for await (const line of createInterface({ input: process.stdin })) {
  const { documents, pipeline } = EJSON.parse(line, { relaxed: true });
  console.log(EJSON.stringify(new Aggregator(pipeline).run(documents), { relaxed: true }));
}
