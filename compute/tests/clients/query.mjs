// One statement in JavaScript: `node query.mjs <installed> <url> <sql>`.
//
// Runs it with the unmodified @libsql/client and prints its rows, or its error, as JSON.

import { createRequire } from "node:module";
import { join } from "node:path";

const [installed, url, sql] = process.argv.slice(2);
const { createClient } = createRequire(join(installed, "package.json"))("@libsql/client");

const client = createClient({ url });
try {
    const result = await client.execute(sql);
    console.log(JSON.stringify({ rows: result.rows.map((row) => result.columns.map((_, index) => row[index])) }));
} catch (error) {
    console.log(JSON.stringify({ error: String(error.message), code: error.code ?? null }));
}
client.close();
