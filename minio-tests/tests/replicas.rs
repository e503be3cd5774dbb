//! Two `shoal serve --read-replicas` on one bucket: one owns a database, the other answers reads of it.
//!
//! What is looked at: the replica shows what the owner has acknowledged to whoever asks for it by LSN, says what it
//! shows and how old that may be, costs the bucket nothing while it is warm, refuses writes and says who takes them, and
//! goes on when the owner is killed and another process takes over.

use emulator::{Counters, Operation};
use minio_tests::bucket::Bucket;
use minio_tests::clock;
use minio_tests::fleet::Fleet;
use minio_tests::limits::RECOVERY;
use serde_json::{Value as Json, json};

/// Too little for a fold, which would make the replica read the head and the new pack.
const WARM_WRITES: u64 = 20;
const ROWS: u64 = 400;

struct Answer {
    status: u16,
    lsn: u64,
    role: String,
    staleness_millis: Option<u64>,
    body: Json,
}

impl Answer {
    fn first(&self) -> &str {
        let value = &self.body["results"][0]["response"]["result"]["rows"][0][0]["value"];
        value.as_str().unwrap_or_else(|| panic!("no value in {}", self.body))
    }
}

/// Sends one statement as any client does; the headers are the test's own business.
fn ask(fleet: &Fleet, number: usize, stmt: &Json, min_lsn: Option<u64>) -> Answer {
    let url = format!("http://{}/db/app/v2/pipeline", fleet.process(number).http());
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = agent.post(&url);
    if let Some(lsn) = min_lsn {
        request = request.header("shoal-min-lsn", lsn.to_string());
    }
    let body = json!({"requests": [{"type": "execute", "stmt": stmt}]}).to_string();
    let mut answer = request.send(body).unwrap_or_else(|error| panic!("process {number} does not answer: {error}"));
    let header = |name: &str| Some(answer.headers().get(name)?.to_str().expect("text").to_owned());
    let number = |name: &str| header(name).map(|text| text.parse::<u64>().expect("a number"));
    let (lsn, staleness_millis) = (number("shoal-lsn").unwrap_or_default(), number("shoal-staleness-ms"));
    let (status, role) = (answer.status().as_u16(), header("shoal-role").unwrap_or_default());
    let body = answer.body_mut().read_to_string().expect("a body");
    Answer { status, lsn, role, staleness_millis, body: serde_json::from_str(&body).expect("JSON") }
}

fn sql(text: &str) -> Json {
    json!({ "sql": text })
}

/// A write at its owner; the LSN that it got.
fn write(fleet: &Fleet, owner: usize, text: &str) -> u64 {
    let answer = clock::poll(RECOVERY, || Some(ask(fleet, owner, &sql(text), None)).filter(|answer| answer.status == 200));
    let answer = answer.unwrap_or_else(|| panic!("process {owner} takes no writes"));
    assert_eq!(answer.body["results"][0]["type"], "ok", "{}", answer.body);
    assert_eq!((answer.role.as_str(), answer.staleness_millis), ("owner", None));
    answer.lsn
}

/// A read at the replica of at least this LSN, however often it has to be asked.
fn read(fleet: &Fleet, text: &str, min_lsn: u64) -> Answer {
    let answer = clock::poll(RECOVERY, || {
        Some(ask(fleet, 1, &sql(text), Some(min_lsn))).filter(|answer| answer.status == 200 && answer.role == "replica")
    });
    let answer = answer.unwrap_or_else(|| panic!("the replica does not get to LSN {min_lsn}"));
    assert!(answer.lsn >= min_lsn, "it shows LSN {}, not {min_lsn}", answer.lsn);
    assert!(answer.staleness_millis.is_some(), "a replica says how old its answer may be");
    answer
}

/// What was read besides the records of nodes, which come with time.
fn gets(counters: &Counters) -> Vec<(String, u64)> {
    let gets = counters.iter().filter(|(operation, class, _)| *operation == Operation::Get && class.as_str() != "inc");
    gets.map(|(_, class, counter)| (class.to_string(), counter.requests)).collect()
}

#[test]
fn a_replica_answers_from_its_own_cache_and_survives_its_owner() {
    let mut fleet = Fleet::new(Bucket::emulator(), 2, &["--lease", "2s", "--read-replicas"]);
    fleet.start(0);
    fleet.start(1);
    fleet.process(0).create_database("app");
    write(&fleet, 0, "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER)");
    let mut lsn = write(&fleet, 0, &rows_up_to(ROWS));

    // Warm: the owner writes, the replica shows each commit, and reads nothing from the bucket.
    assert_eq!(read(&fleet, "SELECT count(*) FROM t", lsn).first(), ROWS.to_string());
    let before = fleet.bucket.as_emulator().counters();
    for number in 1..=WARM_WRITES {
        lsn = write(&fleet, 0, &format!("UPDATE t SET n = {number} WHERE id = 7"));
        assert_eq!(read(&fleet, "SELECT n FROM t WHERE id = 7", lsn).first(), number.to_string());
    }
    let spent = fleet.bucket.as_emulator().counters().since(&before);
    assert_eq!(gets(&spent), [], "the replica reads from the bucket although it is warm");

    // The index that results carry does the same as the header, as libSQL's clients send it.
    lsn = write(&fleet, 0, "UPDATE t SET n = 70 WHERE id = 7");
    let indexed = json!({"sql": "SELECT n FROM t WHERE id = 7", "replication_index": lsn.to_string()});
    assert_eq!(ask(&fleet, 1, &indexed, None).first(), "70");
    let too_much = ask(&fleet, 1, &sql("SELECT 1"), Some(lsn + 1000));
    assert_eq!(too_much.status, 503, "{}", too_much.body);
    assert!(too_much.body.to_string().contains(&format!("has got to LSN {lsn},")), "{}", too_much.body);

    refuses_writes(&fleet);
    // A client that knows nothing of replicas.
    let client = fleet.process(1).database("app");
    assert_eq!(client.execute("SELECT n FROM t WHERE id = 7", &[]).expect("an answer").len(), 1);
    assert_eq!(client.cursor("SELECT * FROM t", &[]).expect("an answer").len() as u64, ROWS);

    // Folds, and packs that are deleted under the replica.
    write(&fleet, 0, "CREATE TABLE big(x)");
    for number in 0..12 {
        write(&fleet, 0, &format!("UPDATE t SET n = {number}"));
        lsn = write(&fleet, 0, "INSERT INTO big SELECT hex(randomblob(50000)) FROM t LIMIT 3");
        assert_eq!(read(&fleet, "SELECT min(n) FROM t", lsn).first(), number.to_string());
    }
    assert_eq!(read(&fleet, "PRAGMA integrity_check", lsn).first(), "ok");

    survives_its_owner(&mut fleet, lsn);
    fleet.terminate();
}

fn rows_up_to(count: u64) -> String {
    format!("INSERT INTO t WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {count}) SELECT i, 0 FROM c")
}

fn refuses_writes(fleet: &Fleet) {
    let owner = fleet.process(0).http().to_owned();
    // Told by its first word, and told by SQLite.
    let plain = ask(fleet, 1, &sql("DELETE FROM t"), None);
    assert_eq!(plain.status, 503, "{}", plain.body);
    assert!(plain.body.to_string().contains(&owner), "it does not say where to write: {}", plain.body);
    let url = format!("http://{}/db/app/v2/pipeline", fleet.process(1).http());
    let body = json!({"requests": [{"type": "execute", "stmt": sql("BEGIN READONLY")}]}).to_string();
    let begun = ureq::post(&url).send(body).expect("an answer").body_mut().read_to_string().expect("a body");
    let baton = serde_json::from_str::<Json>(&begun).expect("JSON")["baton"].clone();
    let body = json!({"baton": baton, "requests": [
        {"type": "execute", "stmt": sql("COMMIT")}, {"type": "execute", "stmt": sql("DELETE FROM t")}, {"type": "close"}]});
    let refused = ureq::post(&url).send(body.to_string()).expect("an answer").body_mut().read_to_string().expect("a body");
    let refused: Json = serde_json::from_str(&refused).expect("JSON");
    assert_eq!(refused["results"][1]["error"]["code"], "SHOAL_UNAVAILABLE", "{refused}");
    assert!(refused.to_string().contains(&owner), "it does not say where to write: {refused}");
}

/// The owner dies: what it acknowledged goes on being shown, as old as it is. Then another process takes over.
fn survives_its_owner(fleet: &mut Fleet, lsn: u64) {
    let last = write(fleet, 0, "UPDATE t SET n = 1000");
    fleet.kill9(0);
    assert_eq!(read(fleet, "SELECT min(n) FROM t", lsn).lsn.max(last), last, "nothing that nobody wrote");
    assert_eq!(read(fleet, "SELECT min(n) FROM t", last).first(), "1000", "what was acknowledged is in the bucket");
    fleet.start(0);
    let next = write(fleet, 0, "UPDATE t SET n = 2000 WHERE id = 1");
    assert!(next > last);
    assert_eq!(read(fleet, "SELECT max(n) FROM t", next).first(), "2000");
}
