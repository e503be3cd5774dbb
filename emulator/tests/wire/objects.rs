//! Single objects: writing, reading whole and in part, deleting, and what is refused.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::ChecksumAlgorithm;
use bytes::Bytes;

use crate::client::*;

async fn get_range(client: &Client, key: &str, range: &str) -> GetObjectOutput {
    client.get_object().bucket(BUCKET).key(key).range(range).send().await.unwrap()
}

#[tokio::test]
async fn an_object_reads_back_as_it_was_written() {
    let (_emulator, client) = start().await;
    let etag = etag(put(&client, "meta/cluster", "hello").await);
    assert_eq!(etag, "\"5d41402abc4b2a76b9719d911017c592\"", "the MD5, in quotes");
    let object = client.get_object().bucket(BUCKET).key("meta/cluster").send().await.unwrap();
    assert_eq!(object.e_tag(), Some(etag.as_str()));
    assert_eq!(object.content_length(), Some(5));
    assert_eq!(object.body.collect().await.unwrap().into_bytes(), "hello");
    let head = client.head_object().bucket(BUCKET).key("meta/cluster").send().await.unwrap();
    assert_eq!((head.content_length(), head.e_tag()), (Some(5), Some(etag.as_str())));
}

#[tokio::test]
async fn equal_bytes_have_equal_etags_and_other_bytes_do_not() {
    let (_emulator, client) = start().await;
    let one = etag(put(&client, "a", "same").await);
    let two = etag(put(&client, "b", "same").await);
    let other = etag(put(&client, "a", "other").await);
    assert_eq!(one, two);
    assert_ne!(one, other);
}

#[tokio::test]
async fn large_and_empty_bodies_arrive_whole() {
    let (emulator, client) = start().await;
    let large: Bytes = (0..9_000_001_u32).map(|i| (i % 251) as u8).collect();
    put_bytes(&client, "large", large.clone()).await.unwrap();
    put(&client, "empty", "").await.unwrap();
    assert!(get(&client, "large").await.unwrap() == large);
    assert!(get(&client, "empty").await.unwrap().is_empty());
    assert_eq!(emulator.object_count(), 2);
}

#[tokio::test]
async fn ranges_are_clamped_to_the_end_as_http_does() {
    let (_emulator, client) = start().await;
    put(&client, "k", "0123456789").await.unwrap();
    let cases = [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=0-0", "0", "bytes 0-0/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=7-99", "789", "bytes 7-9/10"),
        ("bytes=-3", "789", "bytes 7-9/10"),
    ];
    for (range, bytes, content_range) in cases {
        let part = get_range(&client, "k", range).await;
        assert_eq!(part.content_range(), Some(content_range), "{range}");
        assert_eq!(part.content_length(), Some(bytes.len() as i64), "{range}");
        assert_eq!(part.body.collect().await.unwrap().into_bytes(), bytes, "{range}");
    }
}

#[tokio::test]
async fn a_range_past_the_end_is_refused() {
    let (_emulator, client) = start().await;
    put(&client, "k", "0123456789").await.unwrap();
    put(&client, "empty", "").await.unwrap();
    for (key, range) in [("k", "bytes=10-12"), ("k", "bytes=99-"), ("empty", "bytes=0-0")] {
        let got = client.get_object().bucket(BUCKET).key(key).range(range).send().await;
        assert_eq!(refused(got), refusal(416, "InvalidRange"), "{key} {range}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_404_by_name() {
    let (_emulator, client) = start().await;
    assert_eq!(refused(get(&client, "none").await), refusal(404, "NoSuchKey"));
    let head = client.head_object().bucket(BUCKET).key("none").send().await;
    assert_eq!(refused(head).0, 404);
    let elsewhere = client.get_object().bucket("elsewhere").key("k").send().await;
    assert_eq!(refused(elsewhere), refusal(404, "NoSuchBucket"));
    let body = ByteStream::from_static(b"x");
    let elsewhere = client.put_object().bucket("elsewhere").key("k").body(body).send().await;
    assert_eq!(refused(elsewhere), refusal(404, "NoSuchBucket"));
    let elsewhere = client.list_objects_v2().bucket("elsewhere").send().await;
    assert_eq!(refused(elsewhere), refusal(404, "NoSuchBucket"));
    let elsewhere = client.delete_object().bucket("elsewhere").key("k").send().await;
    assert_eq!(refused(elsewhere), refusal(404, "NoSuchBucket"));
}

#[tokio::test]
async fn deleting_twice_is_no_error() {
    let (emulator, client) = start().await;
    put(&client, "k", "x").await.unwrap();
    for _ in 0..2 {
        client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
        assert_eq!(emulator.object_count(), 0);
    }
    assert_eq!(refused(get(&client, "k").await), refusal(404, "NoSuchKey"));
}

#[tokio::test]
async fn buckets_can_be_created_once_and_are_apart() {
    let (emulator, client) = start().await;
    assert_eq!(refused(client.head_bucket().bucket("second").send().await).0, 404);
    client.create_bucket().bucket("second").send().await.unwrap();
    client.head_bucket().bucket("second").send().await.unwrap();
    let again = client.create_bucket().bucket("second").send().await;
    assert_eq!(refused(again), refusal(409, "BucketAlreadyOwnedByYou"));
    let body = ByteStream::from_static(b"x");
    client.put_object().bucket("second").key("k").body(body).send().await.unwrap();
    assert_eq!(emulator.object_count(), 0, "the first bucket is still empty");
    let buckets = client.list_buckets().send().await.unwrap();
    let names: Vec<_> = buckets.buckets().iter().filter_map(|bucket| bucket.name()).collect();
    assert_eq!(names, ["second", BUCKET]);
}

#[tokio::test]
async fn conditional_reads_answer_by_the_etag() {
    let (_emulator, client) = start().await;
    let present = etag(put(&client, "k", "x").await);
    let read = || client.get_object().bucket(BUCKET).key("k");
    read().if_match(&present).send().await.unwrap();
    read().if_none_match("\"other\"").send().await.unwrap();
    let stale = read().if_match("\"other\"").send().await;
    assert_eq!(refused(stale), refusal(412, "PreconditionFailed"));
    assert_eq!(refused(read().if_none_match(&present).send().await).0, 304);
}

#[tokio::test]
async fn a_body_that_is_not_what_its_digest_says_is_not_stored() {
    let (emulator, client) = start().await;
    let put =
        || client.put_object().bucket(BUCKET).key("k").body(ByteStream::from_static(b"hello"));
    let wrong = put().content_md5("XrY7u+Ae7tCTyyK7j1rNww==").send().await;
    assert_eq!(refused(wrong), refusal(400, "BadDigest"));
    let wrong = put().checksum_crc32_c("AAAAAA==").send().await;
    assert_eq!(refused(wrong), refusal(400, "BadDigest"));
    assert_eq!(emulator.object_count(), 0);
    put().content_md5("XUFAKrxLKna5cZ2REBfFkg==").send().await.unwrap();
}

#[tokio::test]
async fn a_client_that_always_sends_checksums_is_understood() {
    let (emulator, _) = start().await;
    let config = config(emulator.endpoint(), emulator.access_key(), emulator.secret_key());
    let config = config.request_checksum_calculation(RequestChecksumCalculation::WhenSupported);
    let client = Client::from_conf(config.build());
    use ChecksumAlgorithm::*;
    for algorithm in [Crc32, Crc32C, Crc64Nvme, Sha1, Sha256] {
        let key = format!("k/{algorithm}");
        let put = client.put_object().bucket(BUCKET).key(&key).checksum_algorithm(algorithm);
        put.body(ByteStream::from_static(b"hello")).send().await.unwrap();
        assert_eq!(emulator.object(&key).unwrap(), "hello");
    }
}

#[tokio::test]
async fn what_is_not_implemented_says_so() {
    let (_emulator, client) = start().await;
    put(&client, "k", "x").await.unwrap();
    let upload = client.create_multipart_upload().bucket(BUCKET).key("big").send().await;
    assert_eq!(refused(upload), refusal(501, "NotImplemented"));
    let version = client.get_object().bucket(BUCKET).key("k").version_id("1").send().await;
    assert_eq!(refused(version), refusal(501, "NotImplemented"));
    let listing = client.list_objects().bucket(BUCKET).send().await;
    assert_eq!(refused(listing), refusal(501, "NotImplemented"));
}
