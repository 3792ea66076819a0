//! A server with the Hub's API, and everything that can go wrong there.

use serde_json::{Value, json};
use sha2::Digest;
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};
use tempfile::TempDir;

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong at the server.
#[derive(Clone, Default)]
pub struct Trouble {
    /// Each response with a large file breaks off after this many bytes.
    pub cut_after: Option<usize>,
    /// After this many responses with large files, the server is unavailable.
    pub answers: Option<usize>,
    /// One byte of each large file is wrong.
    pub damaged: bool,
    /// The server ignores ranges and sends the whole file.
    pub no_ranges: bool,
    /// The server refuses ranges.
    pub refuses_ranges: bool,
    /// Requests without the token are refused.
    pub private: bool,
    pub gated: bool,
    /// The main branch is at another commit, with only these files.
    pub later: Option<(&'static str, Vec<&'static str>)>,
    /// The list of files has paths that no repository has.
    pub odd_names: bool,
    /// Large files come from the same host name, for clients that cannot resolve localhost.
    pub one_host: bool,
    /// The number of bytes that follow the end of a large file.
    pub beyond: usize,
}

struct Request {
    line: String,
    headers: BTreeMap<String, String>,
}

/// A server of one repository, `tiny/demo`.
pub struct FakeHub {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    trouble: Arc<Mutex<Trouble>>,
}

pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

impl FakeHub {
    pub fn start(files: &[(&str, Vec<u8>)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let hub = Self { port, requests: Arc::default(), trouble: Arc::default() };
        let files: BTreeMap<String, Vec<u8>> =
            files.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())).collect();
        let (files, requests, trouble) = (Arc::new(files), hub.requests.clone(), hub.trouble.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (files, requests, trouble) = (files.clone(), requests.clone(), trouble.clone());
                std::thread::spawn(move || answer(stream, port, &files, &requests, &trouble));
            }
        });
        hub
    }

    pub fn troubled(&self, trouble: Trouble) {
        *self.trouble.lock().expect("no panic") = trouble;
    }

    /// The values of a header in the requests for large files' bytes.
    pub fn of_large(&self, header: &str) -> Vec<Option<String>> {
        let requests = self.requests.lock().expect("no panic");
        let large = requests.iter().filter(|request| request.line.starts_with("GET /cdn/"));
        large.map(|request| request.headers.get(header).cloned()).collect()
    }

    pub fn count(&self) -> usize {
        self.requests.lock().expect("no panic").len()
    }

    pub fn command(&self, home: &TempDir, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgpt"));
        command.args(args);
        self.asked_by(command, home)
    }

    /// Prepares any command to use this server and the cache in `home`.
    pub fn asked_by(&self, mut command: Command, home: &TempDir) -> Command {
        for variable in [
            "HF_HUB_CACHE",
            "HF_TOKEN",
            "HF_TOKEN_PATH",
            "HF_HUB_OFFLINE",
            "SSL_CERT_FILE",
            "HTTP_PROXY",
            "http_proxy",
            "ALL_PROXY",
            "all_proxy",
        ] {
            command.env_remove(variable);
        }
        command.env("HF_ENDPOINT", format!("http://127.0.0.1:{}", self.port)).env("HF_HOME", home.path());
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, home: &TempDir, args: &[&str]) -> (i32, String, String) {
        outcome(self.command(home, args))
    }
}

pub fn outcome(mut command: Command) -> (i32, String, String) {
    let output = command.output().expect("it starts");
    let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).expect("UTF-8"));
    assert!(!err.contains("panicked"), "{err}");
    (output.status.code().expect("an exit code"), out, err)
}

/// Whether the Hub stores a file as a large file, identified by its SHA-256.
fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}

pub fn etag(name: &str, bytes: &[u8]) -> String {
    match is_large(name) {
        true => hex(sha2::Sha256::digest(bytes)),
        false => hex(sha1::Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat())),
    }
}

fn answer(
    mut stream: TcpStream,
    port: u16,
    files: &BTreeMap<String, Vec<u8>>,
    requests: &Mutex<Vec<Request>>,
    trouble: &Mutex<Trouble>,
) {
    let mut lines = BufReader::new(stream.try_clone().expect("a stream")).lines();
    let Some(Ok(line)) = lines.next() else { return };
    let headers: BTreeMap<String, String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':').map(|(n, v)| (n.to_lowercase(), v.trim().to_owned())))
        .collect();
    let (method, target) = line.split_once(' ').expect("a request");
    let (method, target) = (method.to_owned(), target.split(' ').next().expect("a target").to_owned());
    let range =
        headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let token = headers.get("authorization").cloned();
    requests.lock().expect("no panic").push(Request { line: line.clone(), headers });
    let mut trouble = trouble.lock().expect("no panic");
    let mut send = |status: &str, headers: &[(&str, String)], body: &[u8], length: usize| {
        let mut head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        let _ = stream.write_all(head.as_bytes());
        let _ = stream.write_all(b"\r\n");
        if method == "GET" {
            let _ = stream.write_all(body);
        }
    };
    let refused = |code: &str| vec![("X-Error-Code", code.to_owned())];
    if let Some(sha) = target.strip_prefix("/cdn/") {
        let (_, bytes) = files
            .iter()
            .find(|(name, bytes)| etag(name, bytes) == sha)
            .expect("a file that was redirected to");
        if let Some(left) = &mut trouble.answers {
            if *left == 0 {
                return send("503 Service Unavailable", &[], b"", 0);
            }
            *left -= 1;
        }
        if trouble.refuses_ranges && range.is_some() {
            return send("416 Range Not Satisfiable", &[], b"", 0);
        }
        let mut bytes = bytes.clone();
        if trouble.damaged {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        let from: usize = range.filter(|_| !trouble.no_ranges).unwrap_or(0);
        bytes.resize(bytes.len() + trouble.beyond, 7);
        let rest = &bytes[from..];
        let sent = &rest[..rest.len().min(trouble.cut_after.unwrap_or(usize::MAX))];
        let status = if from > 0 { "206 Partial Content" } else { "200 OK" };
        return send(status, &[], sent, rest.len());
    }
    if trouble.private && token.as_deref() != Some("Bearer secret") {
        return send("401 Unauthorized", &[], b"", 0);
    }
    if let Some(repository) = target.strip_prefix("/api/models/") {
        return match repository {
            _ if trouble.gated => send("403 Forbidden", &refused("GatedRepo"), b"", 0),
            "tiny/demo/revision/main" => {
                let all = || files.keys().map(String::as_str).collect();
                let (commit, mut names) = trouble.later.clone().unwrap_or_else(|| (COMMIT, all()));
                if trouble.odd_names {
                    names.extend([
                        "../../../evil.safetensors",
                        "/evil.safetensors",
                        "C:evil.gguf",
                        "a\u{1b}[2Jb.gguf",
                    ]);
                }
                let siblings: Vec<Value> = names.iter().map(|name| json!({"rfilename": name})).collect();
                let info = json!({"id": "tiny/demo", "sha": commit, "siblings": siblings}).to_string();
                send("200 OK", &[], info.as_bytes(), info.len());
            }
            _ => send("404 Not Found", &refused("RepoNotFound"), b"", 0),
        };
    }
    let resolved = target.strip_prefix("/tiny/demo/resolve/").and_then(|at| Some(at.split_once('/')?.1));
    // Small files redirect to another path on the same host, which gets the token too.
    if let Some(name) = resolved.filter(|name| !is_large(name) && files.contains_key(*name)) {
        return send("307 Temporary Redirect", &[("Location", format!("/resolve-cache/{name}"))], b"", 0);
    }
    let name = target.strip_prefix("/resolve-cache/").or(resolved);
    let file = name.and_then(|name| Some((name, files.get(name)?)));
    match file {
        Some((name, bytes)) if is_large(name) => {
            let sha = etag(name, bytes);
            let headers = [
                // A client must take this for another host.
                (
                    "Location",
                    format!(
                        "http://{}:{port}/cdn/{sha}",
                        if trouble.one_host { "127.0.0.1" } else { "localhost" }
                    ),
                ),
                ("X-Linked-Etag", format!("\"{sha}\"")),
                ("X-Linked-Size", bytes.len().to_string()),
                ("ETag", "\"of the redirect\"".to_owned()),
            ];
            send("302 Found", &headers, b"", 0);
        }
        Some((name, bytes)) => {
            send("200 OK", &[("ETag", format!("W/\"{}\"", etag(name, bytes)))], bytes, bytes.len());
        }
        None => send("404 Not Found", &refused("EntryNotFound"), b"", 0),
    }
}
