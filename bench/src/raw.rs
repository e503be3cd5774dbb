//! The least that a conditional PUT or a GET can be: one HTTP request with a signature that was made before.

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

    /// Gets an object. Tells how long that took, in milliseconds.
    pub fn get(&self, key: &str) -> anyhow::Result<f64> {
        let get = self.signer.get_object().bucket(&self.bucket).key(key);
        let config = PresigningConfig::builder().start_time(wall_clock()).expires_in(EXPIRES);
        let request = self.runtime.block_on(get.presigned(config.build()?)).context("cannot sign a request")?;
        let mut get = self.agent.get(request.uri());
        for (name, value) in request.headers() {
            get = get.header(name, value);
        }
        let (answer, millis) = clock::millis(|| {
            let mut answer = get.call()?;
            let bytes = answer.body_mut().read_to_vec()?;
            anyhow::Ok((answer.status(), bytes.len()))
        });
        let (status, bytes) = answer?;
        anyhow::ensure!(status.is_success() && bytes > 0, "a raw GET failed: {status}");
        Ok(millis)
    }

    fn presign(&mut self) -> anyhow::Result<PresignedRequest> {
        self.puts += 1;
        let put = self.signer.put_object().bucket(&self.bucket).key(format!("raw/{}", self.puts)).if_none_match("*");
        let config = PresigningConfig::builder().start_time(wall_clock()).expires_in(EXPIRES);
        let presigned = self.runtime.block_on(put.presigned(config.build()?));
        presigned.context("cannot sign a request")
    }
}

#[expect(clippy::disallowed_methods, reason = "a signature bears the time of day")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
