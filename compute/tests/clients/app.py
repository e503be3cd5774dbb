"""The scripted application in Python: `python app.py <url> <script>`.

Carries out the steps of the script (see script.rs) with the unmodified `libsql` package and prints one line of
JSON for each (see outcome.rs). The driver raises ValueError for everything, with the code inside of its text.
"""

import json
import multiprocessing
import struct
import sys

import libsql

BEGIN = {"write": "BEGIN IMMEDIATE", "read": "BEGIN READONLY"}


def to_driver(value):
    if value is None:
        return None
    if "integer" in value:
        return int(value["integer"])
    if "real" in value:
        return struct.unpack(">d", bytes.fromhex(value["real"]))[0]
    if "text" in value:
        return value["text"]
    return bytes.fromhex(value["blob"])


def from_driver(value):
    if value is None:
        return None
    if isinstance(value, int):
        return {"integer": str(value)}
    if isinstance(value, float):
        return {"real": struct.pack(">d", value).hex()}
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, bytes):
        return {"blob": value.hex()}
    raise TypeError(f"the driver returned a {type(value)}")


def failed(error):
    return {"error": str(error), "code": None}


def execute(connection, statement):
    try:
        cursor = connection.execute(statement["sql"], tuple(to_driver(value) for value in statement["args"]))
        if statement["has_rows"]:
            rows = [[from_driver(value) for value in row] for row in cursor.fetchall()]
            return {"columns": [column[0] for column in cursor.description], "rows": rows}
        rowid = str(cursor.lastrowid) if statement["sql"].startswith("INSERT") else None
        return {"affected": cursor.rowcount, "rowid": rowid}
    except ValueError as error:
        return failed(error)


def done(action):
    try:
        action()
        return {"done": True}
    except ValueError as error:
        return failed(error)


def transaction(url, mode, statements, end):
    # Left to itself, the driver begins a deferred transaction at the first statement that writes.
    connection = libsql.connect(url, auth_token="")
    if mode in BEGIN:
        connection.execute(BEGIN[mode])
    outcomes = [execute(connection, statement) for statement in statements]
    outcomes.append(done(connection.commit if end == "commit" else connection.rollback))
    connection.close()
    return outcomes


def together(url, transactions):
    # In processes: the driver keeps all other threads of a process waiting while it waits for an answer.
    tasks = [(url, "write", statements, "commit") for statements in transactions]
    with multiprocessing.get_context("spawn").Pool(len(tasks)) as pool:
        return [outcome for outcomes in pool.starmap(transaction, tasks) for outcome in outcomes]


def run(url, connection, step):
    kind = step["kind"]
    if kind == "execute":
        return [execute(connection, statement) for statement in step["statements"]]
    if kind == "transaction":
        return transaction(url, step["mode"], step["statements"], step["end"])
    if kind == "batch":
        # The driver has no batches; a script that is a whole transaction is its nearest.
        return [done(lambda: connection.executescript(";".join(["BEGIN", *step["texts"], "COMMIT"])))]
    if kind == "script":
        return [done(lambda: connection.executescript(step["text"]))]
    if kind == "together":
        return together(url, step["transactions"])
    raise ValueError(f"unknown kind of step: {kind}")


def main():
    url, script = sys.argv[1:]
    # Without transactions of its own making: each statement by itself.
    connection = libsql.connect(url, auth_token="", isolation_level=None)
    with open(script, encoding="utf-8") as file:
        steps = json.load(file)
    for step in steps:
        print(json.dumps({"name": step["name"], "outcomes": run(url, connection, step)}), flush=True)
    connection.close()


if __name__ == "__main__":
    main()
