//! Connections: accepting them, their limits, and the way to the end.

use super::{Options, app::App, routes};
use crate::error::{Error, Result};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
    time::{sleep, timeout},
};

/// How long the headers of a request may take.
const HEADER_TIME: Duration = Duration::from_secs(30);

/// How long requests are still taken after the server is asked to stop: load balancers look away slowly.
const LOOK_AWAY: Duration = Duration::from_secs(2);

/// How often it is looked whether something came to pass.
const POLL: Duration = Duration::from_millis(50);

/// How long connections have to send the rest of what was cut.
const CUT_TIME: Duration = Duration::from_secs(2);

/// Listens at the address of the options.
///
/// # Errors
/// Of the kind Request where that is not possible.
pub async fn listen(options: &Options) -> Result<TcpListener> {
    let (host, port) = (&options.host, options.port);
    TcpListener::bind((host.trim_matches(['[', ']']), port)).await.map_err(|e| {
        Error::request(format!("{host}:{port} cannot be listened at: {e}: choose another --host or --port"))
            .because(e)
    })
}

/// What asks the server to stop.
enum Stop {
    /// What runs may end.
    Drain,
    /// At once.
    Now,
}

/// Waits for what asks the server to stop.
struct Stops<I> {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    interrupted: I,
}

impl<I: Fn() -> bool> Stops<I> {
    fn new(interrupted: I) -> Result<Self> {
        #[cfg(unix)]
        let terminate = {
            use tokio::signal::unix::{SignalKind, signal};
            signal(SignalKind::terminate())
                .map_err(|e| Error::run(format!("SIGTERM cannot be waited for: {e}")).because(e))?
        };
        Ok(Self {
            #[cfg(unix)]
            terminate,
            interrupted,
        })
    }

    async fn next(&mut self) -> Stop {
        let interrupted = async {
            while !(self.interrupted)() {
                sleep(POLL).await;
            }
        };
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => Stop::Drain,
            () = interrupted => Stop::Now,
        }
        #[cfg(not(unix))]
        {
            interrupted.await;
            Stop::Now
        }
    }
}

/// Serves connections until SIGTERM, or until `interrupted`, which is asked now and then, returns true.
/// `loaded` tells when the model is loaded.
///
/// # Errors
/// Those of loading the model.
pub async fn run(
    app: &Arc<App>,
    listener: TcpListener,
    loaded: oneshot::Receiver<Result<()>>,
    interrupted: impl Fn() -> bool,
) -> Result<()> {
    let mut stops = Stops::new(interrupted)?;
    let (close, closing) = watch::channel(false);
    // Its receiver ends when the last connection does.
    let (open, mut all_ended) = mpsc::channel::<()>(1);
    let accepting = tokio::spawn(accept(app.clone(), listener, closing, open));
    tokio::select! {
        outcome = loaded => {
            outcome.unwrap_or_else(|_| Err(Error::run("the model could not be loaded: report it")))?;
            let stop = stops.next().await;
            end(app, stop, &mut stops).await;
        }
        _ = stops.next() => (),
    }
    close.send_replace(true);
    accepting.abort();
    let _ = timeout(CUT_TIME, all_ended.recv()).await;
    Ok(())
}

/// Takes no more requests, and lets those that run end as far as there is time.
async fn end<I: Fn() -> bool>(app: &App, stop: Stop, stops: &mut Stops<I>) {
    if let Stop::Drain = stop {
        app.drain();
        let drained = async {
            sleep(LOOK_AWAY).await;
            app.close();
            is_idle(app).await;
        };
        tokio::select! {
            () = drained => return,
            () = sleep(app.options.drain_timeout) => (),
            _ = stops.next() => (),
        }
    }
    app.close();
    app.cut();
    let _ = timeout(CUT_TIME, is_idle(app)).await;
}

/// Waits until no sequence runs or waits, and every answer is read.
async fn is_idle(app: &App) {
    while !app.is_idle() {
        sleep(POLL).await;
    }
}

/// Accepts connections until it is dropped. Each ends by itself once `closing` says so.
async fn accept(
    app: Arc<App>,
    listener: TcpListener,
    closing: watch::Receiver<bool>,
    open: mpsc::Sender<()>,
) {
    let service = TowerToHyperService::new(routes::router(app));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // There are too many connections: some will end.
            sleep(POLL).await;
            continue;
        };
        // Each token of a stream is sent at once.
        let _ = stream.set_nodelay(true);
        let (service, mut closing, open) = (service.clone(), closing.clone(), open.clone());
        tokio::spawn(async move {
            let mut builder = http1::Builder::new();
            // Names of headers as people write them: some clients do not know that their case says nothing.
            builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).title_case_headers(true);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                _ = connection.as_mut() => (),
                () = async { drop(closing.wait_for(|closing| *closing).await) } => {
                    // Answers what was asked, then ends.
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
            drop(open);
        });
    }
}
