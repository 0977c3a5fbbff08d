// Read Mermaid texts from stdin, a JSON string per line, with the parser that JupyterLab brings along, whose folder of
// scripts is the argument. For each, write what it understood, or the error in its words.
const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");

const [folder] = process.argv.slice(2);
const scripts = fs.readdirSync(folder).filter((name) => name.endsWith(".js"));
const script = scripts
  .map((name) => fs.readFileSync(path.join(folder, name), "utf8"))
  .find((text) => text.includes("ATTRIBUTE_WORD"));
const made = script.match(/[,\s](\w+)=(function\(\)\{var (?:(?!;\w+\.parser=).)*\}\(\));(?=\1\.parser=\1)/s)[2];
const [, module_, name] = made.match(/\(0,(\w+)\.(\w+)\)\(/);
const parser = new Function(module_, `return ${made}`)({ [name]: (given) => given });

const same = new Proxy({}, { get: (_, word) => word });
const read = (source) => {
  const tables = {};
  const keys = [];
  parser.yy = {
    Cardinality: same,
    Identification: same,
    addEntity: (table) => { tables[table] ??= []; },
    addAttributes: (table, columns) => { tables[table] = columns.reverse(); },
    addRelationship: (to, role, from, { cardA, cardB }) => { keys.push([to, cardB, cardA, from, role]); },
  };
  try {
    parser.parse(source);
    return { tables, keys };
  } catch (error) {
    return { error: String(error.message ?? error) };
  }
};
readline.createInterface({ input: process.stdin }).on("line", (line) => console.log(JSON.stringify(read(JSON.parse(line)))));
