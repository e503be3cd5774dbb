// The scripted application in JavaScript: `node app.mjs <installed> <url> <script>`.
//
// Carries out the steps of the script (see script.rs) with the unmodified @libsql/client and prints one line of
// JSON for each (see outcome.rs).

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [installed, url, scriptFile] = process.argv.slice(2);
const { createClient } = createRequire(join(installed, "package.json"))("@libsql/client");

const toDriver = (value) => {
    if (value === null) return null;
    if ("integer" in value) return BigInt(value.integer);
    if ("real" in value) return Buffer.from(value.real, "hex").readDoubleBE();
    if ("text" in value) return value.text;
    return Uint8Array.from(Buffer.from(value.blob, "hex"));
};

const fromDriver = (value) => {
    if (value === null) return null;
    if (typeof value === "bigint") return { integer: value.toString() };
    if (typeof value === "string") return { text: value };
    if (value instanceof ArrayBuffer) return { blob: Buffer.from(value).toString("hex") };
    if (typeof value !== "number") throw new Error(`the driver returned a ${typeof value}`);
    const bits = Buffer.alloc(8);
    bits.writeDoubleBE(value);
    return { real: bits.toString("hex") };
};

const toStatement = ({ sql, args, named }) => ({
    sql,
    args: named ? Object.fromEntries(named.map(([name, value]) => [name, toDriver(value)])) : args.map(toDriver),
});

const failed = (error) => ({ error: String(error.message), code: error.code ?? null });

// Runs one statement on a client or in a transaction.
const execute = async (on, statement) => {
    try {
        const result = await on.execute(toStatement(statement));
        if (statement.has_rows) {
            const rows = result.rows.map((row) => result.columns.map((_, index) => fromDriver(row[index])));
            return { columns: result.columns, rows };
        }
        const rowid = statement.sql.startsWith("INSERT") ? result.lastInsertRowid.toString() : null;
        return { affected: result.rowsAffected, rowid };
    } catch (error) {
        return failed(error);
    }
};

const done = async (promise) => {
    try {
        await promise;
        return { done: true };
    } catch (error) {
        return failed(error);
    }
};

const transaction = async (client, mode, statements, end) => {
    const tx = await client.transaction(mode);
    try {
        const outcomes = [];
        for (const statement of statements) outcomes.push(await execute(tx, statement));
        outcomes.push(await done(end === "commit" ? tx.commit() : tx.rollback()));
        return outcomes;
    } finally {
        tx.close();
    }
};

const run = async (client, step) => {
    switch (step.kind) {
        case "execute": {
            const outcomes = [];
            for (const statement of step.statements) outcomes.push(await execute(client, statement));
            return outcomes;
        }
        case "transaction":
            return transaction(client, step.mode, step.statements, step.end);
        case "batch":
            return [await done(client.batch(step.texts, "write"))];
        case "script":
            return [await done(client.executeMultiple(step.text))];
        case "together": {
            const all = step.transactions.map((statements) => transaction(client, "write", statements, "commit"));
            return (await Promise.all(all)).flat();
        }
    }
    throw new Error(`unknown kind of step: ${step.kind}`);
};

const client = createClient({ url, intMode: "bigint" });
for (const step of JSON.parse(readFileSync(scriptFile, "utf8"))) {
    process.stdout.write(JSON.stringify({ name: step.name, outcomes: await run(client, step) }) + "\n");
}
client.close();
