//! The Hub's HTTP API: the files of a repository, their metadata and their bytes.

use super::checksum::Checksum;
use crate::error::{Error, Result};
use serde::Deserialize;
use std::{io::Read, thread::sleep, time::Duration};
use ureq::{
    Agent, Body,
    config::RedirectAuthHeaders,
    http::{HeaderMap, Response, StatusCode},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

/// How many times in a row a request may fail for a temporary reason, and the pause after the first failure.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(200);

/// A server with the Hub's API.
pub(super) struct Remote {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// A repository at a commit: the commit's hash and the paths of the files.
pub(super) struct Revision {
    pub commit: String,
    pub files: Vec<String>,
}

/// A file of a repository.
#[derive(Debug)]
pub(super) struct RemoteFile {
    pub repository: String,
    pub path: String,
    pub bytes: u64,
    /// Identifies the content: a SHA-256, a git hash or any other ETag.
    pub etag: String,
    url: String,
}

impl RemoteFile {
    /// The checksum that the ETag is: SHA-256 for the files that the Hub stores as large files, a git hash
    /// for others. None if it is neither.
    pub fn checksum(&self) -> Option<Checksum> {
        let is_hex = self.etag.bytes().all(|b| b.is_ascii_hexdigit());
        match self.etag.len() {
            64 if is_hex => Some(Checksum::sha256()),
            40 if is_hex => Some(Checksum::git(self.bytes)),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Info {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Why a request failed, and whether it is worth another try.
pub(super) enum Failure {
    /// `got_on`: whether some bytes arrived before the failure.
    Passing {
        cause: String,
        got_on: bool,
    },
    /// The server does not serve the requested range of bytes.
    NoSuchRange,
    Final(Error),
}

impl Failure {
    fn of(error: ureq::Error) -> Self {
        Self::Passing { cause: error.to_string(), got_on: false }
    }
}

/// Repeats a request after temporary failures, with growing pauses. Gives up after `TRIES` failures in a
/// row that made no progress.
pub(super) fn persist<T>(endpoint: &str, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T> {
    let mut tries = 0;
    loop {
        let (cause, got_on) = match attempt() {
            Ok(done) => return Ok(done),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing { cause, got_on }) => (cause, got_on),
            Err(Failure::NoSuchRange) => ("it has no such range".to_owned(), false),
        };
        tries = if got_on { 1 } else { tries + 1 };
        if tries == TRIES {
            return Err(Error::run(format!(
                "the Hub at {endpoint} could not be asked: {cause}; check the network, or try again later, \
                 which goes on where this ended"
            )));
        }
        tracing::debug!("{cause}: once more");
        sleep(PAUSE * 4u32.pow(tries - 1));
    }
}

impl Remote {
    pub fn new(endpoint: &str, token: Option<&str>) -> Result<Self> {
        if token.is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Error::request(
                "the token of HF_TOKEN, or of its file, holds what no token does: copy it anew from the \
                 Hub's page",
            ));
        }
        let agent = Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_per_read(Some(Duration::from_secs(30)))
            .http_status_as_error(false)
            // The token goes to the Hub itself, not to the storage servers that it redirects to.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("wgpt/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(roots()?).build())
            .build();
        Ok(Self { agent: agent.into(), endpoint: endpoint.to_owned(), token: token.map(str::to_owned) })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The endpoint without its path, if it has one.
    fn origin(&self) -> &str {
        let host = self.endpoint.find("://").map_or(0, |at| at + 3);
        self.endpoint[host..].find('/').map_or(&*self.endpoint, |end| &self.endpoint[..host + end])
    }

    /// The newest commit of a repository's main branch, and the files at that commit.
    pub fn revision(&self, repository: &str) -> Result<Revision> {
        let url = format!("{}/api/models/{repository}/revision/main", self.endpoint);
        let attempt = || {
            let mut response = self.get(&url, 0)?;
            self.check(&response, repository, None)?;
            let text = response.body_mut().read_to_string().map_err(Failure::of)?;
            serde_json::from_str::<Info>(&text).map_err(|e| {
                Failure::Final(
                    Error::run(format!("{url} did not answer as the Hub does: {e}; check HF_ENDPOINT"))
                        .because(e),
                )
            })
        };
        let Info { sha, siblings } = persist(&self.endpoint, attempt)?;
        let commit = sha.filter(|sha| !sha.is_empty() && sha.bytes().all(|b| b.is_ascii_alphanumeric()));
        let commit = commit.ok_or_else(|| Error::run(format!("{url} names no commit; check HF_ENDPOINT")))?;
        let files = siblings.into_iter().map(|file| file.rfilename).filter(|path| is_inside(path)).collect();
        Ok(Revision { commit, files })
    }

    /// The size and ETag of a file, read from response headers of the Hub itself without following
    /// redirections to storage.
    pub fn file(&self, repository: &str, commit: &str, path: &str) -> Result<RemoteFile> {
        let url = format!("{}/{repository}/resolve/{commit}/{}", self.endpoint, escaped(path));
        let attempt = || {
            let mut at = url.clone();
            for _ in 0..5 {
                // A compressed response would have another length.
                let request = self.agent.head(&at).header("Accept-Encoding", "identity");
                let request = request.config().max_redirects(0).build();
                let request = match &self.token {
                    Some(token) => request.header("Authorization", format!("Bearer {token}")),
                    None => request,
                };
                let response = request.call().map_err(Failure::of)?;
                let to = header(response.headers(), "location");
                match to {
                    // A renamed repository redirects within the host. A redirection elsewhere is not
                    // followed: that server's headers are not the Hub's.
                    Some(to) if response.status().is_redirection() && is_relative(to) => {
                        at = format!("{}{to}", self.origin());
                    }
                    _ => {
                        self.check(&response, repository, Some(path))?;
                        return Ok(response.headers().clone());
                    }
                }
            }
            Err(Failure::Final(Error::run(format!("{url} is redirected in circles"))))
        };
        let headers = persist(&self.endpoint, attempt)?;
        let first = |names: [&str; 2]| names.into_iter().find_map(|name| header(&headers, name));
        let etag =
            first(["x-linked-etag", "etag"]).map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
        let bytes = first(["x-linked-size", "content-length"]).and_then(|size| size.parse().ok());
        let is_name =
            |etag: &&str| !etag.is_empty() && etag.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        match (etag.filter(is_name), bytes) {
            (Some(etag), Some(bytes)) => Ok(RemoteFile {
                repository: repository.to_owned(),
                path: path.to_owned(),
                bytes,
                etag: etag.to_owned(),
                url,
            }),
            _ => Err(Error::run(format!(
                "{url} has no ETag and length, which the Hub gives every file; check HF_ENDPOINT"
            ))),
        }
    }

    /// A file's bytes from an offset on, and whether the response begins there: a server may ignore the range
    /// and send the whole file.
    pub fn open(&self, file: &RemoteFile, from: u64) -> Result<(impl Read + use<>, bool), Failure> {
        let response = self.get(&file.url, from)?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Err(Failure::NoSuchRange);
        }
        self.check(&response, &file.repository, Some(&file.path))?;
        let is_rest = response.status() == StatusCode::PARTIAL_CONTENT;
        Ok((response.into_body().into_reader(), is_rest))
    }

    fn get(&self, url: &str, from: u64) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(url).header("Accept-Encoding", "identity");
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call().map_err(Failure::of)
    }

    /// The error for a request that was refused, by the status and the Hub's error code.
    fn check(&self, response: &Response<Body>, repository: &str, path: Option<&str>) -> Result<(), Failure> {
        let status = response.status();
        if status.is_success() || status.is_redirection() {
            return Ok(());
        }
        let endpoint = &self.endpoint;
        let code = header(response.headers(), "x-error-code").unwrap_or_default();
        let what = path.map_or_else(|| repository.to_owned(), |path| format!("{path} of {repository}"));
        Err(match status.as_u16() {
            408 | 429 | 500.. => Failure::Passing { cause: format!("it answers {status}"), got_on: false },
            _ if code == "GatedRepo" => Failure::Final(Error::model(format!(
                "{repository} is gated: accept its terms on its page at {endpoint}, and give a token of your \
                 account with HF_TOKEN"
            ))),
            401 | 403 => {
                let advice = match self.token {
                    Some(_) => "check the name, and that the token of HF_TOKEN is valid and may read it",
                    None => "check the name, and where it is private or gated give a token with HF_TOKEN",
                };
                Failure::Final(Error::model(format!(
                    "the Hub at {endpoint} does not give out {what} ({status}): {advice}"
                )))
            }
            404 => {
                Failure::Final(Error::model(format!("the Hub at {endpoint} has no {what}: check the name")))
            }
            _ => Failure::Final(Error::run(format!(
                "the Hub at {endpoint} answers {status} when asked for {what}"
            ))),
        })
    }
}

/// Whether a redirection stays on the same host.
fn is_relative(location: &str) -> bool {
    location.starts_with('/') && !location.starts_with("//")
}

/// Whether a path stays within the folder it is relative to, on any system. Other paths are ignored as files
/// of a repository.
fn is_inside(path: &str) -> bool {
    let is_odd = |c: char| c.is_control() || c == ':' || c == '\\';
    !path.contains(is_odd) && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// The trusted certificates: those in `SSL_CERT_FILE`, for networks with an inspecting proxy, else Mozilla's.
pub(crate) fn roots() -> Result<RootCerts> {
    let Some(file) = super::path_in_env("SSL_CERT_FILE") else { return Ok(RootCerts::WebPki) };
    let name = file.display();
    let pem = std::fs::read(&file)
        .map_err(|e| Error::request(format!("SSL_CERT_FILE: {name} cannot be read: {e}")).because(e))?;
    let certificates = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    Ok(RootCerts::from(certificates))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Percent-encodes a path for a URL.
fn escaped(path: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().map(|b| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
