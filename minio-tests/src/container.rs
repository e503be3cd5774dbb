//! MinIO in a container of Docker's, for machines that have it nowhere else. Behind the feature `docker`, because
//! it brings a hundred crates that nothing else needs.

use testcontainers::core::IntoContainerPort;
use testcontainers::runners::SyncRunner;
use testcontainers::{Container, GenericImage, ImageExt};

use crate::clock;
use crate::limits::START;
use crate::minio::{ACCESS_KEY, SECRET_KEY};

const IMAGE: &str = "minio/minio";
const TAG: &str = "RELEASE.2025-09-07T16-13-09Z";
const PORT: u16 = 9000;

/// A running MinIO. It ends, and its data with it, when this is dropped.
pub struct MinioContainer {
    _container: Container<GenericImage>,
    endpoint: String,
}

impl MinioContainer {
    /// Starts the server; an error says why there is none, which is usual where there is no Docker.
    pub fn start() -> Result<Self, String> {
        let image = GenericImage::new(IMAGE, TAG).with_exposed_port(PORT.tcp());
        let image = image.with_env_var("MINIO_ROOT_USER", ACCESS_KEY).with_env_var("MINIO_ROOT_PASSWORD", SECRET_KEY);
        let image = image.with_env_var("MINIO_BROWSER", "off").with_env_var("MINIO_UPDATE", "off");
        let container = image.with_cmd(["server", "/data"]).start().map_err(|error| format!("Docker: {error}"))?;
        let host = container.get_host().map_err(|error| error.to_string())?;
        let port = container.get_host_port_ipv4(PORT).map_err(|error| error.to_string())?;
        let endpoint = format!("http://{host}:{port}");
        let ready = format!("{endpoint}/minio/health/ready");
        let is_up = clock::poll(START, || ureq::get(&ready).call().is_ok().then_some(()));
        is_up.ok_or_else(|| format!("MinIO in its container is not ready within {START:?}"))?;
        Ok(Self { _container: container, endpoint })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}
