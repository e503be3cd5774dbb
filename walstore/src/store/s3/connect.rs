//! Setting up the client: credentials and region from the usual `AWS_*` environment and profiles, the
//! rest from the store's URL.

use std::fmt;
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Credentials, ProvideCredentials, RequestChecksumCalculation, ResponseChecksumValidation,
    SharedHttpClient, SharedInterceptor, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use super::S3Store;
use super::date::LatestDate;
use super::failure::{Place, chain};
use crate::store::limits::{
    ATTEMPT_TIMEOUT, CONNECT_TIMEOUT, IDLE_CONNECTION, IDLE_CONNECTIONS_MAX,
};
use crate::store::{StoreError, StoreErrorKind, StoreUrl};

/// Where an S3 store is: the checked parts of `s3://bucket/prefix?endpoint=…&region=…&path_style=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Location {
    pub bucket: String,
    /// A key of the bucket under which all objects are, or empty.
    pub prefix: String,
    pub endpoint: Option<String>,
    pub region: Option<String>,
    /// Whether the bucket is in the path (`http://host/bucket/key`) and not in the host name. By default it
    /// is when there is an endpoint, since that is what other stores than AWS understand.
    pub path_style: Option<bool>,
}

/// How an S3 store behaves.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// How long a request may take, on top of the time for its bytes.
    pub attempt_timeout: Duration,
    /// Credentials to use instead of those that the environment has.
    pub credentials: Option<S3Credentials>,
}

impl Default for S3Options {
    fn default() -> Self {
        Self { attempt_timeout: ATTEMPT_TIMEOUT, credentials: None }
    }
}

/// A pair of keys, for stores that a test has started itself.
#[derive(Clone)]
pub struct S3Credentials {
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

impl S3Store {
    /// Sets up the client and looks for credentials. Sends nothing to the bucket.
    pub async fn open(location: &S3Location, options: &S3Options) -> Result<Self, StoreError> {
        let mut location = location.clone();
        location.endpoint = location.endpoint.or_else(endpoint_from_environment);
        let config = load_config(&location, options.credentials.as_ref()).await;
        // A profile may name an endpoint too.
        location.endpoint = location.endpoint.or_else(|| config.endpoint_url().map(str::to_owned));
        let url = StoreUrl::S3(location.clone()).to_string();
        check_region(&config, &url)?;
        check_credentials(&config, &url).await?;
        let is_path_style = location.path_style.unwrap_or(location.endpoint.is_some());
        let mut builder =
            aws_sdk_s3::config::Builder::from(&config).force_path_style(is_path_style);
        builder.set_endpoint_url(location.endpoint.clone());
        let date = LatestDate::of(location.endpoint.as_deref());
        builder.push_interceptor(SharedInterceptor::new(date.clone()));
        let prefix = match location.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok(Self {
            client: Client::from_conf(builder.build()),
            place: Place { bucket: location.bucket.clone(), endpoint: location.endpoint },
            bucket: location.bucket,
            prefix,
            attempt_timeout: options.attempt_timeout,
            url,
            date,
        })
    }
}

/// A connection costs round trips, so they are kept and many. (`TCP_NODELAY` is on by default.)
fn http_client() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .pool_idle_timeout(IDLE_CONNECTION)
        .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
        .tls_provider(Provider::Rustls(CryptoMode::Ring))
        .build_https()
}

async fn load_config(location: &S3Location, credentials: Option<&S3Credentials>) -> SdkConfig {
    let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build();
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    let loader = match credentials {
        Some(S3Credentials { access_key_id, secret_access_key }) => loader.credentials_provider(
            Credentials::new(access_key_id, secret_access_key, None, None, "options"),
        ),
        None => loader,
    };
    match (&location.region, &location.endpoint) {
        (Some(region), _) => loader.region(Region::new(region.clone())).load().await,
        (None, Some(_)) => {
            // Elsewhere than at AWS the region seldom matters, and there is no metadata service to ask.
            let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(ProfileFileRegionProvider::new())
                .or_else(Region::from_static("us-east-1"));
            loader.region(chain).load().await
        }
        (None, None) => loader.load().await,
    }
}

fn endpoint_from_environment() -> Option<String> {
    let names = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"];
    names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn check_region(config: &SdkConfig, url: &str) -> Result<(), StoreError> {
    if config.region().is_some() {
        return Ok(());
    }
    let message = "no region: set AWS_REGION, or add ?region=… to the URL";
    Err(StoreError::new(StoreErrorKind::Invalid, url, message))
}

/// Without credentials no request can succeed, and here is the best place to say what to set. Those of a
/// role are renewed later; should that fail, it is the request's error.
async fn check_credentials(config: &SdkConfig, url: &str) -> Result<(), StoreError> {
    let reason = match config.credentials_provider() {
        Some(provider) => match provider.provide_credentials().await {
            Ok(_) => return Ok(()),
            Err(error) => chain(&error),
        },
        None => "nothing provides any".to_owned(),
    };
    let message = format!(
        "no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN if they are \
         temporary), or AWS_PROFILE, or give this machine a role that may use the bucket ({reason})"
    );
    Err(StoreError::new(StoreErrorKind::Denied, url, message))
}
