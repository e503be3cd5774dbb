use std::path::PathBuf;

use clap::CommandFactory;

use super::*;
use crate::cli::settings::CacheIo;
use crate::cli::units::{ByteSize, Span};

fn read(line: &str) -> Result<Command, clap::Error> {
    Cli::read(line.split_whitespace().map(OsString::from)).map(|cli| cli.command)
}

#[test]
fn the_definitions_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn dev_needs_nothing() {
    let Command::Dev(dev) = read("shoal dev").expect("no flags") else { panic!("dev") };
    assert_eq!(dev.data_dir, PathBuf::from("./shoal-data"));
    assert_eq!(dev.http_listen_addr.to_string(), "127.0.0.1:8080");
    assert_eq!(dev.admin_listen_addr.to_string(), "127.0.0.1:8081");
    assert!(!dev.no_auth);
}

#[test]
fn a_pageserver_needs_only_a_store() {
    let line = "shoal pageserver --store file:///s --drain-interval 1m --sweep-interval 2m";
    let Command::Pageserver(args) = read(line).expect("a store") else { panic!("pageserver") };
    assert_eq!(args.listen_addr.to_string(), "127.0.0.1:8082");
    assert_eq!(args.drain_interval.as_duration().as_secs(), 60);
    assert_eq!(args.sweep_interval.as_duration().as_secs(), 120);
    let wrong = read("shoal pageserver").map(|_| ());
    // Unless the environment names one.
    assert!(wrong.is_err() || std::env::var_os("SHOAL_STORE").is_some());
}

#[test]
fn serve_reads_every_flag() {
    let line = "shoal serve --store file:///s --cache-dir /c --cache-size 2GiB --disk-io plain --memory 1GB \
        --lease 900ms --http-listen-addr [::1]:80 --admin-listen-addr 127.0.0.1:81 --no-auth \
        --default-database main --log debug --max-body-size 1MiB --max-response-size 2MB \
        --max-transaction-size 3MB --statement-timeout 1m --idle-transaction-timeout 2s \
        --commit-timeout 3s --window 25ms --cores 2 --config /etc/shoal.toml";
    let Command::Serve(serve) = read(line).expect("all flags") else { panic!("serve") };
    let settings = serve.settings;
    assert_eq!(serve.config, Some(PathBuf::from("/etc/shoal.toml")));
    assert_eq!(settings.store.as_deref(), Some("file:///s"));
    assert_eq!(settings.cache_size, Some(ByteSize::mib(2048)));
    assert_eq!(settings.disk_io, Some(CacheIo::Plain));
    assert_eq!(settings.lease, Some(Span::millis(900)));
    assert_eq!(settings.no_auth, Some(true));
    assert_eq!(settings.window.map(|window| window.to_string()), Some("25ms".into()));
    assert_eq!(settings.cores, Some(2));
}

#[test]
fn a_flag_without_its_value_can_be_switched_off() {
    let Command::Serve(serve) = read("shoal serve --no-auth=false").expect("a bool") else { panic!("serve") };
    assert_eq!(serve.settings.no_auth, Some(false));
    // The word after it is not taken for its value.
    assert!(read("shoal serve --no-auth false").is_err());
}

#[test]
fn a_bad_value_is_refused_with_what_to_write() {
    for (line, flag, remedy) in [
        ("shoal serve --lease 10", "--lease", "write 900ms, 10s"),
        ("shoal serve --window 7", "--window", "write 0, 5ms, 10ms"),
        ("shoal serve --cache-size big", "--cache-size", "256MiB"),
        ("shoal dev --http-listen-addr localhost:80", "--http-listen-addr", "127.0.0.1:8080"),
    ] {
        let message = read(line).expect_err(line).to_string();
        assert!(message.contains(flag) && message.contains(remedy), "{message}");
    }
}

#[test]
fn a_bad_value_from_the_environment_names_its_variable() {
    let words = |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>();
    let refused = || Cli::try_parse_from(words("shoal serve --lease 10")).expect_err("no unit");
    let only_serve = words("shoal serve");
    let message = name_the_variable(refused(), &only_serve, |name| name == "SHOAL_LEASE").to_string();
    assert!(message.contains("comes from the environment variable SHOAL_LEASE"), "{message}");
    for with_flag in ["shoal serve --lease 10", "shoal serve --lease=10"] {
        let message = name_the_variable(refused(), &words(with_flag), |_| true).to_string();
        assert!(!message.contains("environment variable"), "{message}");
    }
    let message = name_the_variable(refused(), &only_serve, |_| false).to_string();
    assert!(!message.contains("environment variable"), "{message}");
}

#[test]
fn flags_of_the_client_stand_before_or_after_the_subcommand() {
    let Command::Client(ClientCommand::Db(db)) =
        read("shoal db create app --admin-url http://h:1 --output json").expect("db create")
    else {
        panic!("db")
    };
    assert_eq!(db.admin_url, "http://h:1");
    assert_eq!(db.output, Output::Json);
    assert!(matches!(db.command, DbCommand::Create { name, from: None } if name == "app"));
    assert!(read("shoal db --output json list --prefix a").is_ok());
}
