//! An interactive transaction: a stream of requests, each with the baton of the answer before.

use crate::hrana::{Database, Failure, Row, close_request, execute_request};
use crate::value::Value;

/// A stream over HTTP. One that is dropped is simply not come back for, as after a client's crash.
pub struct Stream<'d> {
    database: &'d Database,
    baton: Option<String>,
}

impl<'d> Stream<'d> {
    pub fn new(database: &'d Database) -> Self {
        Self { database, baton: None }
    }

    /// Runs one statement, and keeps the stream.
    pub fn execute(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Failure> {
        self.send(sql, args, false)
    }

    /// Runs the last statement, and closes the stream: what it leaves open is rolled back.
    pub fn finish(mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Failure> {
        self.send(sql, args, true)
    }

    fn send(&mut self, sql: &str, args: &[Value], is_last: bool) -> Result<Vec<Row>, Failure> {
        let mut requests = vec![execute_request(sql, args)];
        requests.extend(is_last.then(close_request));
        // A baton is good for one request. If this one fails as a whole, the stream is lost.
        let baton = self.baton.take();
        let answer = self.database.pipeline(baton.as_deref(), &requests)?;
        self.baton = answer.baton;
        answer.results.into_iter().next().expect("checked: as many results as requests")
    }
}
