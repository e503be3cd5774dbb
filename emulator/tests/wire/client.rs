//! What the tests share: an emulator, a client for it, and short forms of the requests.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{
    BehaviorVersion, Config, Credentials, Region, RequestChecksumCalculation,
    ResponseChecksumValidation,
};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::get_object::GetObjectError;
use aws_sdk_s3::operation::put_object::{PutObjectError, PutObjectOutput};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use emulator::{Emulator, EmulatorConfig};

pub const BUCKET: &str = "shoal";

/// What a refused request shows: the HTTP status and S3's error code.
pub type Refusal = (u16, String);

/// An emulator on the test's runtime, and a client with its credentials.
pub async fn start() -> (Emulator, Client) {
    start_with(EmulatorConfig::default()).await
}

pub async fn start_with(config: EmulatorConfig) -> (Emulator, Client) {
    let emulator = Emulator::start(config).await.unwrap();
    let client = client(&emulator);
    (emulator, client)
}

pub fn client(emulator: &Emulator) -> Client {
    let config = config(emulator.endpoint(), emulator.access_key(), emulator.secret_key());
    Client::from_conf(config.build())
}

/// The settings that Shoal uses: no retries, checksums only where S3 demands them.
pub fn config(endpoint: String, access_key: &str, secret_key: &str) -> aws_sdk_s3::config::Builder {
    Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new(access_key, secret_key, None, None, "test"))
        .endpoint_url(endpoint)
        .force_path_style(true)
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .retry_config(RetryConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
}

pub type PutResult = Result<PutObjectOutput, SdkError<PutObjectError>>;

pub async fn put(client: &Client, key: &str, body: &'static str) -> PutResult {
    put_bytes(client, key, Bytes::from_static(body.as_bytes())).await
}

pub async fn put_bytes(client: &Client, key: &str, body: Bytes) -> PutResult {
    client.put_object().bucket(BUCKET).key(key).body(ByteStream::from(body)).send().await
}

pub async fn put_absent(client: &Client, key: &str, body: &'static str) -> PutResult {
    let put = client.put_object().bucket(BUCKET).key(key).if_none_match("*");
    put.body(ByteStream::from_static(body.as_bytes())).send().await
}

pub async fn put_match(client: &Client, key: &str, body: &'static str, etag: &str) -> PutResult {
    let put = client.put_object().bucket(BUCKET).key(key).if_match(etag);
    put.body(ByteStream::from_static(body.as_bytes())).send().await
}

pub async fn get(client: &Client, key: &str) -> Result<Bytes, SdkError<GetObjectError>> {
    let object = client.get_object().bucket(BUCKET).key(key).send().await?;
    Ok(object.body.collect().await.expect("the whole body").into_bytes())
}

/// The ETag that a PUT gave.
pub fn etag(put: PutResult) -> String {
    put.unwrap().e_tag.expect("a PUT has an ETag")
}

/// The refusal in an answered request; anything else fails the test.
pub fn refused<T, E>(result: Result<T, SdkError<E, HttpResponse>>) -> Refusal
where
    E: ProvideErrorMetadata + std::fmt::Debug,
{
    match result {
        Ok(_) => panic!("the request was not refused"),
        Err(SdkError::ServiceError(error)) => {
            let code = error.err().code().unwrap_or_default().to_owned();
            (error.raw().status().as_u16(), code)
        }
        Err(error) => panic!("no answer: {error:?}"),
    }
}

pub fn refusal(status: u16, code: &str) -> Refusal {
    (status, code.to_owned())
}

/// Whether the connection closed without an answer.
pub fn unanswered<T, E>(result: &Result<T, SdkError<E, HttpResponse>>) -> bool {
    matches!(result, Err(SdkError::DispatchFailure(_) | SdkError::ResponseError(_)))
}
