use super::*;

const FILE: &str = "/etc/shoal.toml";

fn resolve(flags: Settings, file: &str) -> Result<ServeConfig, ConfigError> {
    let settings = parse_file(file, Path::new(FILE))?;
    resolve_settings(flags, settings, Sources::new(FILE.into()))
}

fn message(flags: Settings, file: &str) -> String {
    resolve(flags, file).expect_err("these settings are wrong").to_string()
}

fn with_store() -> Settings {
    Settings { store: Some("file:///bucket".into()), ..Settings::default() }
}

#[test]
fn a_store_is_all_that_is_needed() {
    let config = resolve(with_store(), "").expect("a store");
    assert_eq!(config.store, "file:///bucket");
    assert_eq!(config.cache_dir, PathBuf::from("./shoal-cache"));
    assert_eq!(config.http_listen_addr.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin_listen_addr.to_string(), "127.0.0.1:8081");
    assert_eq!(config.lease, Span::secs(10));
    assert_eq!(config.window, Window::NONE);
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.limits.idle_transaction_timeout, Span::secs(5));
    assert_eq!(config.default_database, None);
    assert!(!config.create_on_first_use);
}

#[test]
fn the_defaults_are_those_of_the_help() {
    let command = <Settings as clap::Args>::augment_args(clap::Command::new("serve"));
    let documented = |flag: &str| {
        let argument = command.get_arguments().find(|argument| argument.get_long() == Some(flag));
        let help = argument.and_then(|argument| argument.get_help()).expect(flag).to_string();
        let (_, default) = help.split_once("[default: ").expect(flag);
        default.trim_end_matches(']').to_owned()
    };
    let config = resolve(with_store(), "").expect("a store");
    assert_eq!(documented("cache-dir"), config.cache_dir.display().to_string());
    assert_eq!(documented("cache-size"), config.cache_size.to_string());
    assert_eq!(documented("memory"), config.memory.to_string());
    assert_eq!(documented("window"), config.window.to_string());
    assert_eq!(documented("lease"), config.lease.to_string());
    assert_eq!(documented("sweep-interval").parse(), Ok(config.sweep_interval));
    assert_eq!(documented("retention").parse(), Ok(config.retention));
    assert_eq!(documented("http-listen-addr"), config.http_listen_addr.to_string());
    assert_eq!(documented("admin-listen-addr"), config.admin_listen_addr.to_string());
    assert_eq!(documented("log"), config.log);
    assert_eq!(documented("max-body-size"), config.limits.max_body_size.to_string());
    assert_eq!(documented("max-response-size").parse(), Ok(config.limits.max_response_size));
    assert_eq!(documented("max-transaction-size"), "a quarter of --memory, at most 256MiB");
    assert_eq!(documented("statement-timeout"), config.limits.statement_timeout.to_string());
    let idle = config.limits.idle_transaction_timeout;
    assert_eq!(documented("idle-transaction-timeout"), idle.to_string());
    assert_eq!(documented("commit-timeout"), config.limits.commit_timeout.to_string());
}

#[test]
fn a_flag_goes_before_the_file_and_the_file_before_the_default() {
    let flags = Settings { lease: Some(Span::secs(7)), ..Settings::default() };
    let file = "store = \"s3://bucket/prefix\"\nlease = \"20s\"\nmemory = \"1GiB\"\nmax-body-size = \"1MiB\"";
    let config = resolve(flags, file).expect("flags and file");
    assert_eq!(config.lease, Span::secs(7));
    assert_eq!(config.memory, ByteSize::mib(1024));
    assert_eq!(config.limits.max_body_size, ByteSize::mib(1));
    assert_eq!(config.limits.max_response_size, ByteSize::bytes(10_000_000));
    assert_eq!(config.store, "s3://bucket/prefix");
}

#[test]
fn the_largest_transaction_is_a_quarter_of_the_memory_unless_it_is_said() {
    let size = |file: &str| resolve(with_store(), file).expect("a file").limits.max_transaction_size;
    assert_eq!(size(""), ByteSize::mib(64));
    assert_eq!(size("memory = \"128MiB\""), ByteSize::mib(32));
    assert_eq!(size("memory = \"16GiB\""), ByteSize::mib(256));
    assert_eq!(size("memory = \"128MiB\"\nmax-transaction-size = \"200MiB\""), ByteSize::mib(200));
    assert_eq!(size("memory = \"1B\""), ByteSize::bytes(1));
}

#[test]
fn a_flag_can_take_back_what_the_file_allows() {
    let file = "no-auth = true\nhttp-listen-addr = \"0.0.0.0:8080\"";
    assert!(resolve(with_store(), file).is_ok());
    let flags = Settings { no_auth: Some(false), ..with_store() };
    assert!(matches!(resolve(flags, file), Err(ConfigError::OpenToStrangers { .. })));
}

#[test]
fn every_setting_can_be_written_in_the_file() {
    let file = "
        store = \"s3://bucket/prefix\"
        cache-dir = \"/cache\"
        cache-size = \"2GiB\"
        disk-io = \"io-uring\"
        memory = \"512MiB\"
        window = \"10ms\"
        lease = \"900ms\"
        sweep-interval = \"2h\"
        retention = \"7d\"
        cores = 3
        http-listen-addr = \"127.0.0.1:1\"
        admin-listen-addr = \"127.0.0.1:2\"
        no-auth = false
        default-database = \"main\"
        log = \"info,compute=debug\"
        advertise-url = \"http://10.0.0.5:8080\"
        read-replicas = true
        page-server = \"http://10.0.0.9:8082\"
        max-body-size = \"1MiB\"
        max-response-size = \"2MiB\"
        max-transaction-size = \"3MiB\"
        statement-timeout = \"4s\"
        idle-transaction-timeout = \"5s\"
        commit-timeout = \"6s\"";
    let expected = ServeConfig {
        store: "s3://bucket/prefix".into(),
        cache_dir: "/cache".into(),
        cache_size: ByteSize::mib(2048),
        disk_io: CacheIo::IoUring,
        memory: ByteSize::mib(512),
        window: "10ms".parse().expect("a window"),
        lease: Span::millis(900),
        sweep_interval: Span::secs(7200),
        retention: Span::secs(604_800),
        cores: NonZeroUsize::new(3).expect("three"),
        http_listen_addr: loopback(1),
        admin_listen_addr: loopback(2),
        advertise_url: Some("http://10.0.0.5:8080".into()),
        read_replicas: true,
        page_server: Some("http://10.0.0.9:8082".into()),
        default_database: Some("main".into()),
        create_on_first_use: false,
        log: "info,compute=debug".into(),
        limits: Limits {
            max_body_size: ByteSize::mib(1),
            max_response_size: ByteSize::mib(2),
            max_transaction_size: ByteSize::mib(3),
            statement_timeout: Span::secs(4),
            idle_transaction_timeout: Span::secs(5),
            commit_timeout: Span::secs(6),
        },
    };
    assert_eq!(resolve(Settings::default(), file).expect("all keys"), expected);
}

#[test]
fn a_missing_or_odd_store_is_refused_with_what_to_write() {
    assert!(message(Settings::default(), "").contains("write --store s3://bucket/prefix"));
    for url in ["", "bucket", "http://bucket", "s3://", "file://relative"] {
        let message = message(Settings { store: Some(url.into()), ..Settings::default() }, "");
        assert!(message.starts_with("--store (or SHOAL_STORE) is"), "{message}");
        assert!(message.ends_with("write s3://bucket/prefix or file:///directory"), "{message}");
    }
    let message = message(Settings::default(), "store = \"gs://bucket\"");
    assert!(message.starts_with("store in /etc/shoal.toml is `gs://bucket`"), "{message}");
}

#[test]
fn an_address_beyond_loopback_needs_a_decision() {
    let everywhere: SocketAddr = "0.0.0.0:9000".parse().expect("an address");
    let flags = Settings { http_listen_addr: Some(everywhere), ..with_store() };
    let refusal = message(flags.clone(), "");
    assert!(refusal.starts_with("--http-listen-addr (or SHOAL_HTTP_LISTEN_ADDR) is 0.0.0.0:9000"), "{refusal}");
    assert!(refusal.contains("Write 127.0.0.1:9000") && refusal.contains("--no-auth"), "{refusal}");
    assert!(resolve(Settings { no_auth: Some(true), ..flags }, "").is_ok());

    let refusal = message(with_store(), "admin-listen-addr = \"10.0.0.1:8081\"");
    assert!(refusal.starts_with("admin-listen-addr in /etc/shoal.toml is 10.0.0.1:8081"), "{refusal}");
    for local in ["127.0.0.2:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        let flags = Settings { http_listen_addr: Some(local.parse().expect(local)), ..with_store() };
        assert!(resolve(flags, "").is_ok(), "{local}");
    }
}

#[test]
fn applications_and_administration_need_two_ports() {
    let refusal = message(with_store(), "http-listen-addr = \"127.0.0.1:8081\"");
    assert!(refusal.contains("both 127.0.0.1:8081") && refusal.contains("http-listen-addr in"), "{refusal}");
    let any_port = "http-listen-addr = \"127.0.0.1:0\"\nadmin-listen-addr = \"127.0.0.1:0\"";
    assert!(resolve(with_store(), any_port).is_ok());
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_file_the_line_and_the_key() {
    let error = message(with_store(), "store = \"file:///b\"\ncache_size = \"1GiB\"");
    assert!(error.contains(FILE) && error.contains("line 2") && error.contains("cache_size"), "{error}");
    assert!(error.contains("cache-size"), "the known keys are listed: {error}");
    let error = message(with_store(), "lease = 10");
    assert!(error.contains("line 1") && error.contains("has no unit"), "{error}");
}

#[test]
fn values_that_could_not_work_are_refused() {
    for (file, key, remedy) in [
        ("lease = \"99ms\"", "lease", "write 10s"),
        ("cores = 0", "cores", "1 or more"),
        ("cores = 257", "cores", "at most 256"),
        ("memory = 0", "memory", "64MiB"),
        ("max-transaction-size = 0", "max-transaction-size", "64MiB"),
        ("statement-timeout = \"0s\"", "statement-timeout", "write 30s"),
        ("window = \"500ms\"\ncommit-timeout = \"500ms\"", "commit-timeout", "longer than the window"),
        ("log = \"compute=loud\"", "log", "info,compute=debug"),
    ] {
        let error = message(with_store(), file);
        assert!(error.starts_with(&format!("{key} in {FILE} is")), "{error}");
        assert!(error.contains(remedy), "{error}");
    }
}

#[test]
fn a_configuration_file_that_is_not_there_is_named() {
    let error = read_file(Path::new("/nonexistent/shoal.toml")).expect_err("no such file").to_string();
    assert!(error.starts_with("the configuration file /nonexistent/shoal.toml can't be read"), "{error}");
}

#[test]
fn dev_keeps_everything_in_its_directory_and_creates_databases() {
    let args = DevArgs {
        data_dir: "/data".into(),
        http_listen_addr: loopback(1),
        admin_listen_addr: loopback(2),
        no_auth: false,
        log: "warn".into(),
    };
    let config = ServeConfig::for_dev_unaware_of_the_environment(args).expect("dev");
    assert_eq!(config.store, "file:///data/bucket");
    assert_eq!(config.cache_dir, PathBuf::from("/data/cache"));
    assert_eq!(config.default_database.as_deref(), Some("default"));
    assert!(config.create_on_first_use);
}
