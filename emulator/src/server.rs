//! The listening socket, the connections, and what all requests share.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::class::Operation;
use crate::clock;
use crate::config::EmulatorConfig;
use crate::counters::Tally;
use crate::dice::Dice;
use crate::faults::Faults;
use crate::journal::Journal;
use crate::latency::Profile;
use crate::limits::LISTEN_QUEUE;
use crate::objects::Objects;
use crate::request;
use crate::s3::{Api, OneKey};

/// How long to wait when the process has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What all requests of one emulator share.
pub(crate) struct Core {
    pub config: EmulatorConfig,
    pub address: SocketAddr,
    pub objects: Arc<Objects>,
    pub faults: Faults,
    pub tally: Tally,
    pub journal: Journal,
    pub service: S3Service,
    pace: Mutex<(Profile, Dice)>,
    stopped: watch::Sender<bool>,
}

impl Core {
    fn new(config: EmulatorConfig, address: SocketAddr) -> Self {
        let objects = Arc::new(Objects::default());
        objects.create_bucket(&config.bucket).expect("BUG: a new map has buckets");
        // Latencies and faults have dice of their own, so that faults don't shift the latencies.
        let faults = Faults::new(!config.seed);
        let api = Api { objects: Arc::clone(&objects), faults: faults.clone() };
        let mut builder = S3ServiceBuilder::new(api);
        let secret_key = config.secret_key.clone().into();
        builder.set_auth(OneKey { access_key: config.access_key.clone(), secret_key });
        Self {
            address,
            objects,
            faults,
            tally: Tally::default(),
            journal: Journal::default(),
            service: builder.build(),
            pace: Mutex::new((config.profile, Dice::new(config.seed))),
            stopped: watch::Sender::new(false),
            config,
        }
    }

    pub(crate) fn set_profile(&self, profile: Profile) {
        self.pace.lock().expect("BUG: a latency panicked").0 = profile;
    }

    pub(crate) fn draw_latency(&self, operation: Operation) -> Duration {
        let mut pace = self.pace.lock().expect("BUG: a latency panicked");
        let latency = pace.0.of(operation);
        latency.draw(&mut pace.1)
    }

    /// Runs a task that ends, with `None`, when the emulator stops.
    #[expect(
        clippy::disallowed_methods,
        reason = "a remote party is not simulated through the seam"
    )]
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<Option<T>> {
        let mut stopped = self.stopped.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                done = task => Some(done),
                _ = stopped.wait_for(|stopped| *stopped) => None,
            }
        })
    }

    /// Ends the accept loop and all tasks, as soon as they are polled.
    pub(crate) fn stop(&self) {
        self.stopped.send_replace(true);
    }
}

/// Binds the socket. Needs the context of a tokio runtime.
pub(crate) fn bind(config: EmulatorConfig) -> io::Result<(Arc<Core>, TcpListener)> {
    let socket = match config.listen {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(config.listen)?;
    let listener = socket.listen(LISTEN_QUEUE)?;
    let address = listener.local_addr()?;
    Ok((Arc::new(Core::new(config, address)), listener))
}

/// Accepts connections until the emulator stops.
pub(crate) async fn run(core: Arc<Core>, listener: TcpListener) {
    let mut stopped = core.stopped.subscribe();
    tokio::select! {
        never = accept(&core, &listener) => match never {},
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
}

async fn accept(core: &Arc<Core>, listener: &TcpListener) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(core.spawn(serve(Arc::clone(core), stream))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                clock::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(core: Arc<Core>, stream: TcpStream) {
    // Without this, an answer's head and body in two writes cost a delayed acknowledgement of 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let service = service_fn(|request| request::answer(Arc::clone(&core), request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection ended");
    }
}
