//! ListObjectsV2: prefix, start, pages, delimiter.

use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use emulator::Emulator;

use crate::client::*;

fn fill(emulator: &Emulator, prefix: &str, count: usize) {
    for i in 0..count {
        emulator.insert(&format!("{prefix}{i:04}"), format!("{i}"));
    }
}

fn keys(page: &ListObjectsV2Output) -> Vec<&str> {
    page.contents().iter().filter_map(|object| object.key()).collect()
}

#[tokio::test]
async fn a_prefix_lists_its_keys_in_order_with_size_and_etag() {
    let (emulator, client) = start().await;
    fill(&emulator, "n/", 3);
    fill(&emulator, "o/", 3);
    let written = etag(put(&client, "n/zz", "hello").await);
    let page = client.list_objects_v2().bucket(BUCKET).prefix("n/").send().await.unwrap();
    assert_eq!(keys(&page), ["n/0000", "n/0001", "n/0002", "n/zz"]);
    assert_eq!((page.key_count(), page.is_truncated()), (Some(4), Some(false)));
    let last = page.contents().last().unwrap();
    assert_eq!((last.size(), last.e_tag()), (Some(5), Some(written.as_str())));
}

#[tokio::test]
async fn start_after_skips_what_is_not_greater() {
    let (emulator, client) = start().await;
    fill(&emulator, "n/", 5);
    let list = client.list_objects_v2().bucket(BUCKET).prefix("n/").start_after("n/0002");
    assert_eq!(keys(&list.send().await.unwrap()), ["n/0003", "n/0004"]);
}

#[tokio::test]
async fn pages_follow_one_another_to_the_end() {
    let (emulator, client) = start().await;
    fill(&emulator, "n/", 2500);
    let mut sizes = Vec::new();
    let mut listed = Vec::new();
    let mut token = None;
    loop {
        let list = client.list_objects_v2().bucket(BUCKET).prefix("n/");
        let page = list.set_continuation_token(token).max_keys(5000).send().await.unwrap();
        sizes.push(page.contents().len());
        listed.extend(keys(&page).into_iter().map(str::to_owned));
        token = page.next_continuation_token().map(str::to_owned);
        assert_eq!(page.is_truncated(), Some(token.is_some()));
        if token.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [1000, 1000, 500], "a page has 1000 keys at most, whatever was asked for");
    let stored: Vec<_> = emulator.objects("n/").into_iter().map(|(key, _)| key).collect();
    assert_eq!(listed, stored);
}

#[tokio::test]
async fn max_keys_bounds_a_page_and_strange_tokens_are_refused() {
    let (emulator, client) = start().await;
    fill(&emulator, "", 5);
    let page = client.list_objects_v2().bucket(BUCKET).max_keys(2).send().await.unwrap();
    assert_eq!(keys(&page), ["0000", "0001"]);
    let strange =
        client.list_objects_v2().bucket(BUCKET).continuation_token("strange").send().await;
    assert_eq!(refused(strange), refusal(400, "InvalidArgument"));
}

#[tokio::test]
async fn a_delimiter_shows_folders() {
    let (emulator, client) = start().await;
    fill(&emulator, "w/1/", 3);
    fill(&emulator, "w/2/", 3);
    emulator.insert("w/top", "x");
    let list = client.list_objects_v2().bucket(BUCKET).prefix("w/").delimiter("/");
    let page = list.send().await.unwrap();
    let folders: Vec<_> = page.common_prefixes().iter().filter_map(|p| p.prefix()).collect();
    assert_eq!(folders, ["w/1/", "w/2/"]);
    assert_eq!(keys(&page), ["w/top"]);
}
