//! What an owner does beside folds.

use pageserver::collect;
use pageserver::fold::FoldJob;
use pageserver::tail::Tail;
use tenant::name::Name;

use crate::forest::{Forest, check_alone};

impl Forest {
    /// Forks the present state: what is not folded is, in the write that pins it.
    pub async fn fork_now(&mut self, at: usize, retention_secs: u32) -> usize {
        let head = self.owned(at).await;
        let store = self.store();
        let fetcher = self.fetcher(&store);
        let Tail { map, input, tip, .. } = self.tail(at, &fetcher).await;
        let (seq, deleted) = (head.value.fold_seq + 1, Vec::new());
        let job = FoldJob { head, map, input, tip, own_after: None, seq, deleted, release: false, pin: None };
        let name = Name::parse(&format!("fork-{}", self.all.len())).expect("a name");
        let settings = self.settings(retention_secs);
        let forked = self.forker(&*store, &fetcher).fork_folding(job, &name, settings).await;
        let forked = forked.and_then(|(_, child)| child);
        let child = forked.unwrap_or_else(|failure| panic!("R19: a fork of database {at} as it is: {failure}")).value;
        check_alone(&child);
        self.all[at].unfolded.clear();
        let last = self.all[at].last();
        let fork = self.grow(at, last, child.database, name);
        self.settle(fork).await;
        fork
    }

    /// Deletes what the head does not lead to.
    pub async fn collect(&self, at: usize) {
        let store = self.store();
        let fetcher = self.fetcher(&store);
        let head = self.owned(at).await.value;
        let collected = collect::collect(&*store, &self.seam, &fetcher, &head).await;
        let collected = collected.unwrap_or_else(|error| panic!("I6: a collection of database {at}: {error}"));
        assert!(collected.failed == 0, "it deletes what is there");
    }
}
