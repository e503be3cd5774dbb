//! What `shoal dev` shows at its start: an answered query, and how to connect.

use std::time::Duration;

use anyhow::{Context, bail};
use walstore::seam::Seam;

use crate::cli::snippets;
use crate::serve::Server;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends one query through the server's own HTTP and prints the answer, the time it took, and snippets.
pub async fn welcome(server: &Server) -> anyhow::Result<()> {
    let base = format!("http://{}/", server.http_addr);
    let url = format!("{base}db/default/");
    let seam = Seam::production();
    // The first request opens the database; the second shows what a query costs from then on.
    first_query(&url).await?;
    let started = seam.boot_micros();
    let answer = first_query(&url).await?;
    let millis = (seam.boot_micros() - started) as f64 / 1000.0;
    println!("Shoal is ready.");
    println!();
    println!("  data            {base}   (a database: {base}db/<name>/, created on first use)");
    println!("  administration  http://{}/", server.admin_addr);
    println!();
    println!("  {QUERY}");
    println!("  -> {answer}   ({millis:.1} ms over HTTP)");
    println!();
    print!("{}", snippets::text(&url));
    Ok(())
}

const QUERY: &str = "SELECT 'hello from SQLite ' || sqlite_version()";

async fn first_query(url: &str) -> anyhow::Result<String> {
    let url = format!("{url}v2/pipeline");
    let body = serde_json::json!({ "requests": [
        { "type": "execute", "stmt": { "sql": QUERY } },
        { "type": "close" },
    ] });
    let answer = tokio::task::spawn_blocking(move || {
        let agent = ureq::Agent::new_with_config(ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).build());
        let mut response = agent.post(&url).send(body.to_string())?;
        anyhow::Ok(response.body_mut().read_to_string()?)
    });
    let answer = answer.await?.context("the server did not answer its own first query")?;
    let json: serde_json::Value = serde_json::from_str(&answer)?;
    match json.pointer("/results/0/response/result/rows/0/0/value").and_then(serde_json::Value::as_str) {
        Some(text) => Ok(text.to_owned()),
        None => bail!("the first query failed: {answer}"),
    }
}
