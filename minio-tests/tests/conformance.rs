//! The contract of the store seam on real stores over the network. (Those that need no server are tested
//! beside the contract itself.)

use std::sync::Arc;

use minio_tests::bucket::Bucket;
use walstore::seam::Seam;
use walstore::store::probe::Rule;
use walstore::store::{ProbeError, conformance, probe};

/// MinIO and the emulator keep runtimes of their own, so a bucket is made outside of the test's.
fn on(bucket: Bucket, check: impl AsyncFnOnce(&Bucket)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(check(&bucket));
}

#[test]
fn minio_keeps_the_contract() {
    on(Bucket::minio(), async |bucket| conformance(Arc::new(bucket.open().await)).await);
}

#[test]
fn the_emulator_keeps_the_contract() {
    on(Bucket::emulator(), async |bucket| conformance(Arc::new(bucket.open().await)).await);
}

#[test]
fn minio_passes_the_probe() {
    on(Bucket::minio(), async |bucket| {
        probe(&bucket.open().await, &Seam::production()).await.expect("MinIO passes");
    });
}

#[test]
fn the_emulator_passes_the_probe_and_without_its_conditions_does_not() {
    on(Bucket::emulator(), async |bucket| {
        let store = bucket.open().await;
        probe(&store, &Seam::production()).await.expect("the emulator passes");
        bucket.as_emulator().faults().ignore_conditions(true);
        let error = probe(&store, &Seam::production()).await.expect_err("it ignores conditions");
        assert!(matches!(error, ProbeError::Broken { rule: Rule::CreateIsRefused, .. }), "{error}");
    });
}
