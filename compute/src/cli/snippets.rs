//! Ready-made code that connects to a database and runs a query, for whoever starts a server and
//! wants to go on in the language at hand.
//!
//! The slash at the URL's end matters: several clients resolve `v2/pipeline` against the URL, and
//! without it the last part of the path, the database's name, is lost.

/// One way to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snippet {
    /// For whom, and which library.
    pub title: &'static str,
    pub code: String,
}

/// Snippets for a database's URL, in the order in which to show them.
pub fn snippets(url: &str) -> Vec<Snippet> {
    let url = format!("{}/", url.trim_end_matches('/'));
    let templates = [
        ("JavaScript (npm install @libsql/client)", JAVASCRIPT),
        ("Python (pip install libsql)", PYTHON),
        ("Rust (cargo add libsql)", RUST),
        ("Go (go get github.com/tursodatabase/libsql-client-go/libsql)", GO),
        ("curl", CURL),
        ("A terminal", SHELL),
    ];
    let fill = |(title, template): (&'static str, &str)| Snippet { title, code: template.replace("URL", &url) };
    templates.map(fill).into()
}

/// All snippets as one text, as a server prints them when it starts.
pub fn text(url: &str) -> String {
    let mut text = String::new();
    for Snippet { title, code } in snippets(url) {
        text.push_str(&format!("{title}\n"));
        for line in code.lines() {
            text.push_str(&format!("    {line}\n"));
        }
        text.push('\n');
    }
    text
}

const JAVASCRIPT: &str = r#"import { createClient } from "@libsql/client";
const db = createClient({ url: "URL" });
console.log((await db.execute("SELECT sqlite_version()")).rows);"#;

const PYTHON: &str = r#"import libsql
db = libsql.connect("URL", auth_token="")
print(db.execute("SELECT sqlite_version()").fetchall())"#;

const RUST: &str = r#"let db = libsql::Builder::new_remote("URL".into(), String::new()).build().await?;
let mut rows = db.connect()?.query("SELECT sqlite_version()", ()).await?;
println!("{:?}", rows.next().await?);"#;

const GO: &str = r#"import _ "github.com/tursodatabase/libsql-client-go/libsql"
db, err := sql.Open("libsql", "URL")
row := db.QueryRow("SELECT sqlite_version()")"#;

const CURL: &str = r#"curl URLv2/pipeline -d '{"requests":[
  {"type":"execute","stmt":{"sql":"SELECT sqlite_version()"}},{"type":"close"}]}'"#;

const SHELL: &str = "shoal shell URL";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_snippet_has_the_url_with_its_slash() {
        for url in ["http://127.0.0.1:8080/db/app/", "http://127.0.0.1:8080/db/app"] {
            let snippets = snippets(url);
            for name in ["JavaScript", "Python", "Rust", "Go", "curl"] {
                assert!(snippets.iter().any(|snippet| snippet.title.starts_with(name)), "{name}");
            }
            for Snippet { title, code } in snippets {
                assert!(code.contains("http://127.0.0.1:8080/db/app/"), "{title}: {code}");
                assert!(!code.contains("app//") && !code.contains("URL"), "{title}: {code}");
            }
        }
    }

    #[test]
    fn the_text_is_indented_under_its_titles() {
        let text = text("http://h/db/x/");
        assert!(text.starts_with("JavaScript (npm install @libsql/client)\n    import"), "{text}");
        assert!(text.contains("\n    curl http://h/db/x/v2/pipeline -d '{\"requests\":[\n"), "{text}");
    }
}
