//! What a scripted application consists of. Each client has a program that carries scripts out with its driver's
//! own means, and [`sqlite`](super::sqlite) does so on a plain SQLite.

use serde_json::json;

use crate::value::Value;

#[derive(Clone, Debug)]
pub struct Step {
    pub name: &'static str,
    pub action: Action,
}

#[derive(Clone, Debug)]
pub enum Action {
    /// Each statement by itself.
    Execute(Vec<Statement>),
    /// An interactive transaction, with a request for each statement. A statement that fails does not end it.
    Transaction { mode: Mode, statements: Vec<Statement>, end: End },
    /// All or nothing, in one request.
    Batch(Vec<String>),
    /// A text of several statements.
    Script(String),
    /// Interactive transactions at the same time, each on a connection of its own.
    Together(Vec<Vec<Statement>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Deferred,
    Write,
    Read,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Commit,
    Rollback,
}

#[derive(Clone, Debug)]
pub struct Statement {
    pub sql: String,
    pub args: Args,
    /// The client asks for rows, not for counts.
    pub has_rows: bool,
}

#[derive(Clone, Debug)]
pub enum Args {
    Positional(Vec<Value>),
    Named(Vec<(&'static str, Value)>),
}

impl Step {
    pub fn to_json(&self) -> serde_json::Value {
        let all = |statements: &[Statement]| statements.iter().map(Statement::to_json).collect::<Vec<_>>();
        let mut json = match &self.action {
            Action::Execute(statements) => json!({ "kind": "execute", "statements": all(statements) }),
            Action::Transaction { mode, statements, end } => json!({
                "kind": "transaction",
                "mode": match mode { Mode::Deferred => "deferred", Mode::Write => "write", Mode::Read => "read" },
                "statements": all(statements),
                "end": match end { End::Commit => "commit", End::Rollback => "rollback" },
            }),
            Action::Batch(texts) => json!({ "kind": "batch", "texts": texts }),
            Action::Script(text) => json!({ "kind": "script", "text": text }),
            Action::Together(transactions) => {
                json!({ "kind": "together", "transactions": transactions.iter().map(|it| all(it)).collect::<Vec<_>>() })
            }
        };
        json["name"] = json!(self.name);
        json
    }

    /// The step with every argument replaced by what `replace` makes of it.
    pub fn map_arguments(mut self, replace: &dyn Fn(Value) -> Value) -> Step {
        let replace_all = |statements: &mut Vec<Statement>| {
            for statement in statements {
                statement.args.map(replace);
            }
        };
        match &mut self.action {
            Action::Execute(statements) | Action::Transaction { statements, .. } => replace_all(statements),
            Action::Together(transactions) => transactions.iter_mut().for_each(replace_all),
            Action::Batch(_) | Action::Script(_) => {}
        }
        self
    }

    pub fn names_arguments(&self) -> bool {
        let named = |statement: &Statement| matches!(statement.args, Args::Named(_));
        matches!(&self.action, Action::Execute(statements) if statements.iter().any(named))
    }
}

impl Args {
    fn map(&mut self, replace: &dyn Fn(Value) -> Value) {
        match self {
            Args::Positional(values) => values.iter_mut().for_each(|value| *value = replace(value.clone())),
            Args::Named(values) => values.iter_mut().for_each(|(_, value)| *value = replace(value.clone())),
        }
    }
}

impl Statement {
    fn to_json(&self) -> serde_json::Value {
        let mut json = json!({ "sql": self.sql, "has_rows": self.has_rows, "args": null, "named": null });
        match &self.args {
            Args::Positional(values) => json["args"] = values.iter().map(Value::to_json).collect(),
            Args::Named(values) => {
                json["named"] = values.iter().map(|(name, value)| json!([name, value.to_json()])).collect()
            }
        }
        json
    }
}
