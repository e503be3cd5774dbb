//! Many that want the same database at once: it is looked for once, whether it is there or not.

#[path = "../../walstore/tests/support/mod.rs"]
mod held;

use std::sync::Arc;
use std::time::Duration;

use compute::core::{Job, JobError, Message, PipelineReply, Work};
use compute::hrana::HranaVersion;
use compute::node::{CoreThreads, Node, NodeHandle, Settings};
use held::Held;
use tenant::name::Name;
use tokio::sync::oneshot;
use walstore::id::IncarnationId;
use walstore::life::Stores;
use walstore::seam::Seam;
use walstore::store::{CountedStore, Op};

const CLIENTS: usize = 200;

fn ask(node: &NodeHandle, name: &Name) -> oneshot::Receiver<Result<PipelineReply, JobError>> {
    let (reply, answer) = oneshot::channel();
    let work = Work::Pipeline { requests: Vec::new(), reply };
    let job = Job { database: name.clone(), at: None, create: false, baton: None, version: HranaVersion::Hrana3, min_lsn: 0, work, loan: None };
    node.send(name, Message::Job(job)).expect("a node that runs");
    answer
}

#[test]
fn whoever_waited_for_a_failed_try_does_not_try_again_by_himself() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let seam = Seam::production();
        let bucket = Held::default();
        let store = Arc::new(CountedStore::new(bucket.clone()));
        let settings = Settings { cores: 1, ..Settings::default() };
        let stores = Stores::one(store.clone());
        let node = Node::start(IncarnationId::random(&seam), stores, seam, settings, &CoreThreads).await.expect("a node");
        let (handle, name) = (node.handle(), Name::parse("missing").expect("a name"));
        store.take();
        bucket.hold_reads("n/missing");
        let answers: Vec<_> = (0..CLIENTS).map(|_| ask(&handle, &name)).collect();
        // A core begins with requests in the order in which they come: once this one is answered, all the others wait.
        let last = ask(&handle, &Name::parse("another").expect("a name")).await.expect("an answer");
        assert!(matches!(last, Err(JobError::NoSuchDatabase(_))), "somebody found it");
        bucket.release();
        for answer in answers {
            let answer = answer.await.expect("an answer");
            assert!(matches!(answer, Err(JobError::NoSuchDatabase(_))), "somebody found it");
        }
        let asked = store.take().get(&(Op::Get, "n".to_owned())).map_or(0, |counter| counter.requests);
        // Those who came while a try was under way share how it ended.
        assert_eq!(asked, 2, "one for each of the two names, though {CLIENTS} clients asked for one of them");
        node.shut_down(Duration::from_secs(10)).await.expect("sealed");
    });
}
