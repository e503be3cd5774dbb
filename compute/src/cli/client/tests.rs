use super::*;
use crate::cli::test_server::{Answer, Server, serve, serve_sqlite};

struct Seen(Vec<Vec<Cell>>);

impl RowSink for Seen {
    fn columns(&mut self, _: Vec<String>) -> io::Result<()> {
        Ok(())
    }
    fn row(&mut self, cells: Vec<Cell>) -> io::Result<()> {
        self.0.push(cells);
        Ok(())
    }
}

fn client(server: &Server) -> Client {
    let url = DatabaseUrl::parse(&format!("{}/db/x/", server.url)).expect("a URL");
    Client::new(&url, None)
}

fn rows(client: &mut Client, sql: &str) -> Result<Vec<Vec<Cell>>, ClientError> {
    let mut seen = Seen(Vec::new());
    client.stream_rows(sql, &mut seen).map(|()| seen.0)
}

#[test]
fn a_batch_stops_at_its_first_error() {
    let server = serve_sqlite();
    let mut client = client(&server);
    let steps = client.batch(&["CREATE TABLE t(a)", "INSERT INTO nope VALUES(1)", "INSERT INTO t VALUES(1)"]);
    let steps = steps.expect("a batch");
    assert!(matches!(steps[0], Step::Done(_)));
    assert!(matches!(&steps[1], Step::Failed(error) if error.message.contains("no such table: nope")));
    assert_eq!(steps[2], Step::Skipped);
    assert_eq!(rows(&mut client, "SELECT count(*) FROM t").expect("rows"), [[Cell::Integer(0)]]);
}

#[test]
fn a_transaction_spans_requests_of_both_kinds() {
    let server = serve_sqlite();
    let mut client = client(&server);
    assert!(!client.in_transaction().expect("no stream yet"));
    client.batch(&["CREATE TABLE t(a)", "BEGIN", "INSERT INTO t VALUES(1)"]).expect("a batch");
    assert!(client.in_transaction().expect("BEGIN was sent"));
    assert_eq!(rows(&mut client, "SELECT a FROM t").expect("rows"), [[Cell::Integer(1)]]);
    client.batch(&["ROLLBACK"]).expect("a rollback");
    assert!(!client.in_transaction().expect("it ended"));
    assert_eq!(rows(&mut client, "SELECT a FROM t").expect("rows"), [[]; 0] as [[Cell; 0]; 0]);
}

#[test]
fn closing_gives_the_transaction_up() {
    let server = serve_sqlite();
    let mut client = client(&server);
    client.batch(&["CREATE TABLE t(a)", "BEGIN", "INSERT INTO t VALUES(1)"]).expect("a batch");
    client.close();
    assert_eq!(rows(&mut client, "SELECT count(*) FROM t").expect("rows"), [[Cell::Integer(0)]]);
}

#[test]
fn an_sql_error_keeps_the_stream() {
    let server = serve_sqlite();
    let mut client = client(&server);
    client.batch(&["BEGIN"]).expect("a batch");
    let error = rows(&mut client, "SELECT nope").expect_err("no such column").to_string();
    assert!(error.contains("no such column: nope"), "{error}");
    assert!(client.in_transaction().expect("still open"));
}

#[test]
fn a_refused_request_gives_the_stream_up_and_says_so() {
    let server = serve(|request| match request.body.contains("\"baton\":null") {
        true => Answer::json(
            200,
            r#"{"baton":"b","results":[{"type":"ok","response":
            {"type":"batch","result":{"step_results":[null],"step_errors":[null]}}}]}"#,
        ),
        false => Answer::json(400, r#"{"message":"The stream has expired","code":"STREAM_EXPIRED"}"#),
    });
    let mut client = client(&server);
    client.batch(&["BEGIN"]).expect("a baton");
    let error = client.batch(&["SELECT 1"]).expect_err("expired").to_string();
    assert_eq!(
        error,
        "the server answered 400: The stream has expired (STREAM_EXPIRED). A transaction that was open \
         here is rolled back"
    );
    // The next one begins anew.
    assert!(client.batch(&["BEGIN"]).is_ok());
}

#[test]
fn the_token_is_sent() {
    let server = serve(|_| Answer::json(401, r#"{"error":"no"}"#));
    let url = DatabaseUrl::parse(&format!("{}?authToken=of-the-url", server.url)).expect("a URL");
    let _ = Client::new(&url, None).batch(&["SELECT 1"]);
    let _ = Client::new(&url, Some("of-the-flag".into())).batch(&["SELECT 1"]);
    let requests = server.requests();
    assert!(requests[0].headers.contains("authorization: bearer of-the-url"));
    assert!(requests[1].headers.contains("authorization: bearer of-the-flag"));
}

#[test]
fn answers_that_are_not_the_protocols_are_recognised() {
    for body in ["", "<html>", "[]", "{}", r#"{"results":[]}"#, r#"{"results":[{"type":"ok"}]}"#] {
        let server = serve(move |_| Answer::json(200, body));
        let error = client(&server).batch(&["SELECT 1"]).expect_err(body);
        assert!(matches!(error, ClientError::NotHrana { .. }), "{body}: {error}");
        let error = rows(&mut client(&server), "SELECT 1").expect_err(body);
        assert!(!matches!(error, ClientError::Sql(_)), "{body}: {error}");
    }
}

#[test]
fn a_cursor_that_ends_early_is_no_success() {
    let server = serve(|_| {
        Answer::json(
            200,
            concat!(
                r#"{"baton":null,"base_url":null}"#,
                "\n",
                r#"{"type":"step_begin","step":0,"cols":[{"name":"a"}]}"#,
                "\n",
                r#"{"type":"row","row":[{"type":"null"}]}"#,
                "\n",
            ),
        )
    });
    let error = rows(&mut client(&server), "SELECT 1").expect_err("cut off");
    assert!(matches!(error, ClientError::Indefinite(_)), "{error}");
}

#[test]
fn a_connection_that_breaks_after_the_request_leaves_the_outcome_unknown() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        // Reads something, so that the request was sent, and hangs up.
        for mut connection in listener.incoming().flatten() {
            let _ = connection.read(&mut [0; 16]);
        }
    });
    let url = DatabaseUrl::parse(&url).expect("a URL");
    let error = Client::new(&url, None).batch(&["SELECT 1"]).expect_err("hung up");
    assert!(matches!(error, ClientError::Indefinite(_)), "{error}");
    assert!(error.to_string().contains("is not known"), "{error}");
}
