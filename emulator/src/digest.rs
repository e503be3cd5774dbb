//! Checks the digests that a client sends with a PUT, as S3 does before it stores anything.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::PutObjectInput;
use s3s::{S3Error, S3ErrorCode, S3Result, TrailingHeaders};

/// Compares every digest in the request's headers, or after a streamed body in its trailers, with the body.
pub(crate) fn check(
    input: &PutObjectInput,
    trailers: Option<&TrailingHeaders>,
    body: &[u8],
) -> S3Result<()> {
    if let Some(sent) = &input.content_md5 {
        compare("Content-MD5", sent, &STANDARD.encode(Md5::checksum(body)))?;
    }
    let sent =
        |header: &Option<String>, name: &str| header.clone().or_else(|| trailer(trailers, name));
    let crc32 = sent(&input.checksum_crc32, "x-amz-checksum-crc32");
    let crc32c = sent(&input.checksum_crc32c, "x-amz-checksum-crc32c");
    let crc64nvme = sent(&input.checksum_crc64nvme, "x-amz-checksum-crc64nvme");
    let sha1 = sent(&input.checksum_sha1, "x-amz-checksum-sha1");
    let sha256 = sent(&input.checksum_sha256, "x-amz-checksum-sha256");
    let mut hasher = ChecksumHasher {
        crc32: crc32.is_some().then(Default::default),
        crc32c: crc32c.is_some().then(Default::default),
        sha1: sha1.is_some().then(Default::default),
        sha256: sha256.is_some().then(Default::default),
        crc64nvme: crc64nvme.is_some().then(Default::default),
    };
    hasher.update(body);
    let found = hasher.finalize();
    let pairs = [
        ("CRC32", crc32, found.checksum_crc32),
        ("CRC32C", crc32c, found.checksum_crc32c),
        ("CRC64NVME", crc64nvme, found.checksum_crc64nvme),
        ("SHA1", sha1, found.checksum_sha1),
        ("SHA256", sha256, found.checksum_sha256),
    ];
    for (name, sent, found) in pairs {
        if let (Some(sent), Some(found)) = (sent, found) {
            compare(name, &sent, &found)?;
        }
    }
    Ok(())
}

fn trailer(trailers: Option<&TrailingHeaders>, name: &str) -> Option<String> {
    let value = trailers?.read(|headers| headers.get(name).cloned())??;
    value.to_str().ok().map(str::to_owned)
}

fn compare(name: &str, sent: &str, found: &str) -> S3Result<()> {
    if sent == found {
        return Ok(());
    }
    let message = format!("{name} of the body is {found}, not {sent}");
    Err(S3Error::with_message(S3ErrorCode::BadDigest, message))
}
