//! Statements that want more of the local disk than they may have.

use serde_json::json;

use crate::support::*;

/// Statements that put so many rows of 900 bytes into temporary files: from about 1000 on, each would take a page.
fn hungry(rows: usize) -> [String; 2] {
    let blobs = format!(
        "(WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {rows}) SELECT randomblob(900) AS b FROM c)"
    );
    [
        format!("SELECT count(DISTINCT b) FROM {blobs}"),
        format!("SELECT count(*) FROM (SELECT b, count(*) FROM {blobs} GROUP BY b)"),
    ]
}

#[test]
fn temporary_files_over_the_databases_share_are_refused_by_the_settings_name_and_given_back() {
    let mut server = Server::serve(&["--cache-size", "32MiB"]);
    let database = server.database("app");
    for round in 0..4 {
        for sql in hungry(20_000) {
            let (code, message) = database.fails(&sql);
            assert_eq!(code, "SQLITE_FULL", "{message}");
            assert!(message.contains("more than 8388608 bytes") && message.contains("1/4 of the server's --cache-size"), "{message}");
        }
        // More in all rounds together than there is: what is done, or has failed, takes nothing.
        for sql in hungry(3_000) {
            assert_eq!(database.rows(&sql), [json!([3_000])], "round {round}");
        }
    }
    server.assert_well();
}

#[test]
fn one_database_that_fills_its_share_leaves_room_for_others() {
    let mut server = Server::serve(&["--cache-size", "32MiB"]);
    let (greedy, modest) = (server.database("greedy"), server.database("modest"));
    // A temporary table stays for as long as its stream does.
    let mut stream = greedy.stream();
    stream.run("CREATE TEMP TABLE kept(a)");
    let fill = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 2000) INSERT INTO kept SELECT randomblob(1000) FROM c";
    let failed = (0..20).map(|_| stream.send(json!([execute(fill)])).remove(0)).find(|result| result["type"] == "error");
    assert_eq!(error_of(&failed.expect("one is too much")).0, "SQLITE_FULL");
    assert_eq!(greedy.fails(&hungry(8_000)[0]).0, "SQLITE_FULL", "the share is the database's, not the statement's");
    assert_eq!(modest.rows(&hungry(3_000)[0]), [json!([3_000])]);
    stream.send(json!([close()]));
    assert_eq!(greedy.rows(&hungry(3_000)[0]), [json!([3_000])], "given back with the stream");
    server.assert_well();
}
