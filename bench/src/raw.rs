//! The least that a conditional PUT can be: one HTTP request with a signature that was made before.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use aws_sdk_s3::presigning::{PresignedRequest, PresigningConfig};
use emulator::Emulator;

use crate::clock;

const EXPIRES: Duration = Duration::from_secs(3600);

pub struct RawClient {
    agent: ureq::Agent,
    signer: aws_sdk_s3::Client,
    runtime: tokio::runtime::Runtime,
    bucket: String,
    puts: u64,
}

impl RawClient {
    pub fn new(emulator: &Emulator) -> anyhow::Result<Self> {
        let credentials = Credentials::new(emulator.access_key(), emulator.secret_key(), None, None, "bench");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .credentials_provider(credentials)
            .region(Region::from_static("us-east-1"))
            .endpoint_url(emulator.endpoint())
            .force_path_style(true)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .build();
        Ok(Self {
            agent: crate::hrana::agent(),
            signer: aws_sdk_s3::Client::from_conf(config),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            bucket: emulator.bucket().to_owned(),
            puts: 0,
        })
    }

    /// Puts an object of so many bytes under a new key, if absent. Tells how long that took, in milliseconds.
    pub fn put(&mut self, bytes: usize) -> anyhow::Result<f64> {
        let request = self.presign()?;
        let body = vec![0xA5_u8; bytes];
        let mut put = self.agent.put(request.uri());
        for (name, value) in request.headers() {
            put = put.header(name, value);
        }
        let (answer, millis) = clock::millis(|| {
            let mut answer = put.send(&body[..])?;
            let text = answer.body_mut().read_to_string()?;
            anyhow::Ok((answer.status(), text))
        });
        let (status, text) = answer?;
        anyhow::ensure!(status.is_success(), "a raw PUT failed: {status} {text}");
        Ok(millis)
    }

    /// Gets parts of objects over so many connections at a time, each asking for the next part as soon as it has one.
    /// Tells how long all of it took, in milliseconds.
    pub fn get_parts(&self, parts: &[(String, Range<u64>)], connections: usize) -> anyhow::Result<f64> {
        let mut requests = Vec::new();
        for (key, range) in parts {
            let range = format!("bytes={}-{}", range.start, range.end - 1);
            let get = self.signer.get_object().bucket(&self.bucket).key(key).range(range);
            requests.push(self.runtime.block_on(get.presigned(presigning()?)).context("cannot sign a request")?);
        }
        let next = AtomicUsize::new(0);
        let work = || {
            let agent = crate::hrana::agent();
            while let Some((request, (key, range))) = {
                let index = next.fetch_add(1, Ordering::Relaxed);
                requests.get(index).zip(parts.get(index))
            } {
                let mut get = agent.get(request.uri());
                for (name, value) in request.headers() {
                    get = get.header(name, value);
                }
                let bytes = get.call()?.body_mut().read_to_vec()?;
                anyhow::ensure!(bytes.len() as u64 == range.end - range.start, "{} bytes of {key}", bytes.len());
            }
            Ok(())
        };
        let (done, millis) = clock::millis(|| {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..connections).map(|_| scope.spawn(work)).collect();
                threads.into_iter().try_for_each(|thread| thread.join().expect("BUG: a client panicked"))
            })
        });
        done.map(|()| millis)
    }

    fn presign(&mut self) -> anyhow::Result<PresignedRequest> {
        self.puts += 1;
        let put = self.signer.put_object().bucket(&self.bucket).key(format!("raw/{}", self.puts)).if_none_match("*");
        let presigned = self.runtime.block_on(put.presigned(presigning()?));
        presigned.context("cannot sign a request")
    }
}

fn presigning() -> anyhow::Result<PresigningConfig> {
    Ok(PresigningConfig::builder().start_time(wall_clock()).expires_in(EXPIRES).build()?)
}

#[expect(clippy::disallowed_methods, reason = "a signature bears the time of day")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
