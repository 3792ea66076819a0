//! The HTTP server: its answers under load, its care, and what OpenAI's and Anthropic's clients get of it.

use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A server of the built-in model on a free port.
struct Server {
    child: Child,
    address: String,
}

/// An answer: its status, its headers in small letters, and its body.
struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"]["type"].as_str().expect("a type").to_owned())
    }
}

impl Server {
    /// Starts a server and waits until its model is loaded.
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_wgpt"))
            .args(["serve", "--device", "cpu", "--threads", "2", "--port", "0"])
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let address = lines
            .find_map(|line| line.expect("text").strip_prefix("listening on http://").map(str::to_owned));
        std::thread::spawn(move || lines.for_each(drop));
        let server = Self { child, address: address.expect("it says where it listens") };
        let start = Instant::now();
        while server.get("/health").status != 200 {
            assert!(start.elapsed() < Duration::from_secs(60), "the model is loaded");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a limit");
        stream
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: {length}\r\n\
             {headers}\r\n"
        )
        .expect("it listens");
        // It may answer before it has read all.
        let _ = stream.write_all(body);
        answer(stream)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", b"")
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, "", body.to_string().as_bytes())
    }

    #[cfg(unix)]
    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill").success());
    }

    /// The exit status, once it has ended.
    fn ended(&mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads an answer to its end. Chunks are joined.
fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let headers = head.to_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = match headers.contains("transfer-encoding: chunked") {
        true => unchunked(body),
        false => body.to_owned(),
    };
    Answer { status, headers, body }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 || rest.len() < size {
            break;
        }
        whole.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

fn chat(text: &str, fields: Value) -> Value {
    let mut request = json!({"messages": [{"role": "user", "content": text}], "max_tokens": 30});
    request.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    request
}

/// A Python with the clients, if `tests/run` could fetch them.
fn clients() -> Option<PathBuf> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
    if packages.join("openai").is_dir() && packages.join("anthropic").is_dir() {
        return Some(packages);
    }
    eprintln!("skipped: {} holds no clients; tests/run fetches them with pip", packages.display());
    None
}

#[test]
fn the_clients_of_openai_and_anthropic_get_what_they_expect() {
    let Some(packages) = clients() else { return };
    let server = Server::start(&["--api-key", "a key", "--alias", "owner/name"]);
    let script = crate::support::path("serve/clients.py");
    let mut python = Command::new("python3");
    python.arg(script).args([&format!("http://{}", server.address), "a key"]).env("PYTHONPATH", packages);
    let output = python.output().expect("python3");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// With tests/run --compilers, which installs a browser and what drives it.
#[test]
fn the_page_works_in_a_browser() {
    if std::env::var_os("WGPT_TEST_COMPILERS").is_none() || !Path::new("/usr/bin/chromium").exists() {
        eprintln!("skipped: tests/run --compilers runs this in a browser");
        return;
    }
    let server = Server::start(&[]);
    let script = crate::support::path("serve/page.cjs");
    let output = Command::new("node").arg(script).arg(format!("http://{}", server.address)).output();
    let output = output.expect("node");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// With tests/run --compilers, which installs Ray. One of two replicas is killed under load.
#[test]
#[cfg(target_os = "linux")]
fn replicas_behind_ray_serve_stand_in_for_each_other() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ray/bin/python");
    if std::env::var_os("WGPT_TEST_COMPILERS").is_none() || !python.exists() {
        eprintln!("skipped: tests/run --compilers installs Ray and runs this");
        return;
    }
    let script = crate::support::path("serve/replicas.py");
    let output = Command::new(python).arg(script).arg(env!("CARGO_BIN_EXE_wgpt")).output().expect("python");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    print!("{said}");
}

/// Forty requests at once, with room for three of their texts in the cache: each gets the tokens and the
/// log-probabilities that it gets alone.
#[test]
fn an_answer_does_not_depend_on_what_else_runs() {
    let server = Server::start(&["--parallel", "8", "--cache-blocks", "24"]);
    let request = |number: u64| {
        let text = ["Tell me of Lily.", "Who is Tom? ", "Once, in the park,"][number as usize % 3];
        let fields = json!({
            "seed": number,
            "temperature": ([0.0, 1.0, 0.7][number as usize % 3]),
            "logprobs": true,
            "top_logprobs": number % 3,
            "frequency_penalty": if number.is_multiple_of(4) { 0.5 } else { 0.0 },
            "max_tokens": 20 + number * 3,
        });
        chat(&text.repeat(1 + number as usize % 5), fields)
    };
    let of = |number| {
        let answer = server.post("/v1/chat/completions", &request(number));
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["choices"].clone()
    };
    let alone: Vec<Value> = (0..40).map(of).collect();
    std::thread::scope(|scope| {
        let together: Vec<_> = (0..40).map(|number| scope.spawn(move || of(number))).collect();
        for (number, together) in together.into_iter().enumerate() {
            assert_eq!(together.join().expect("an answer"), alone[number], "request {number}");
        }
    });
}

/// A client that goes away frees its slot at once, and requests beyond the queue are told to come back.
#[test]
fn the_queue_is_bounded_and_those_who_leave_make_room() {
    let server = Server::start(&["--parallel", "1", "--max-queue", "1"]);
    let endless =
        chat("Tell me of Lily.", json!({"max_tokens": 480, "ignore_eos": true, "stream": true})).to_string();
    let begin = || {
        let mut stream = server.connect();
        let length = endless.len();
        let head =
            format!("POST /v1/chat/completions HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all((head + &endless).as_bytes()).expect("it listens");
        let mut first = [0; 12];
        stream.read_exact(&mut first).expect("an answer");
        assert_eq!(&first, b"HTTP/1.1 200");
        stream
    };
    let busy = |server: &Server| {
        let slots = server.get("/slots").json();
        slots.as_array().expect("slots").iter().filter(|slot| slot["is_processing"] == true).count()
    };
    // The built-in model is quick: some of these may have ended before the others came.
    for _ in 0..20 {
        let streams = [begin(), begin()];
        let refused = server.post("/v1/completions", &json!({"prompt": "Once", "max_tokens": 1}));
        if refused.status == 429 {
            assert_eq!(refused.error(), (429, "rate_limit_error".to_owned()));
            assert!(refused.headers.contains("retry-after: "), "{}", refused.headers);
            drop(streams);
            let start = Instant::now();
            while busy(&server) > 0 {
                assert!(start.elapsed() < Duration::from_secs(10), "their slots are free");
            }
            return;
        }
    }
    panic!("the queue was never full");
}

/// A request that nobody else keeps waiting is answered, however many its prompts, scored or not.
#[test]
fn more_prompts_than_the_queue_holds_are_scored_and_continued() {
    let server = Server::start(&["--parallel", "1", "--max-queue", "1"]);
    let request =
        json!({"prompt": ["Once", "Tom", "Lily", "Once"], "echo": true, "logprobs": 0, "max_tokens": 1});
    let answer = server.post("/v1/completions", &request);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let choices = answer.json()["choices"].clone();
    assert_eq!(choices.as_array().expect("choices").len(), 4);
    assert_eq!(choices[0]["logprobs"], choices[3]["logprobs"]);
}

#[test]
fn a_server_with_keys_opens_to_these_alone() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, "one\n\n# two users\n two \n").expect("written");
    let path = file.path().to_str().expect("a name");
    let server = Server::start(&["--api-key", "three", "--api-key-file", path]);
    for (headers, status) in [
        ("", 401),
        ("Authorization: Bearer four\r\n", 401),
        ("Authorization: Bearer thre\r\n", 401),
        ("Authorization: Basic three\r\n", 401),
        ("Authorization: Bearer # two users\r\n", 401),
        ("Authorization: Bearer one\r\n", 200),
        ("Authorization: bearer two\r\n", 200),
        ("X-Api-Key: three\r\n", 200),
    ] {
        let answer = server.ask("GET", "/v1/models", headers, b"");
        assert_eq!(answer.status, status, "{headers}");
    }
    assert_eq!(server.get("/v1/models").error(), (401, "authentication_error".to_owned()));
    let error = server.post("/v1/messages", &json!({})).json();
    assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!("authentication_error")));
    assert_eq!([server.get("/health").status, server.get("/").status], [200, 200]);
}

#[test]
fn pages_of_other_origins_ask_only_where_they_may() {
    let server = Server::start(&["--cors-origins", "localhost,https://chat.example"]);
    for (origin, is_allowed) in [
        ("http://localhost:3000", true),
        ("http://127.0.0.1", true),
        ("http://[::1]:8080", true),
        ("https://chat.example", true),
        ("https://localhost.evil.com", false),
        ("https://chat.example.evil.com", false),
        ("null", false),
    ] {
        for method in ["GET", "OPTIONS"] {
            let answer = server.ask(method, "/v1/models", &format!("Origin: {origin}\r\n"), b"");
            let allows = format!("access-control-allow-origin: {}", origin.to_lowercase());
            assert_eq!(answer.headers.contains(&allows), is_allowed, "{method} {origin}: {}", answer.headers);
        }
    }
    let server = Server::start(&[]);
    let answer = server.ask("GET", "/v1/models", "Origin: http://localhost\r\n", b"");
    assert!(!answer.headers.contains("access-control"), "{}", answer.headers);
}

/// Whatever comes, it is an error in words, and the next request is answered.
#[test]
fn what_is_no_request_is_refused_in_words() {
    let server = Server::start(&["--max-body", "1", "--no-slots", "--no-metrics"]);
    let chat = "/v1/chat/completions";
    let nested = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    for body in
        [&b""[..], b"{", b"[]", b"\"text\"", b"{\"messages\": \xff}", b"{\"messages\": 1e999}", &nested]
    {
        assert_eq!(server.ask("POST", chat, "", body).error(), (400, "invalid_request_error".to_owned()));
    }
    let large = vec![b' '; (1 << 20) + 1];
    assert_eq!(server.ask("POST", chat, "", &large).status, 413);
    for (method, path, status, kind) in [
        ("GET", "/nothing", 404, "not_found_error"),
        ("GET", "/v1/models/other%2Fname", 404, "not_found_error"),
        ("PUT", "/v1/models", 405, "invalid_request_error"),
        ("GET", chat, 405, "invalid_request_error"),
        ("GET", "/slots", 501, "not_supported_error"),
        ("GET", "/metrics", 501, "not_supported_error"),
    ] {
        let answer = server.ask(method, path, "", b"");
        assert_eq!(answer.error(), (status, kind.to_owned()), "{method} {path}");
        assert!(answer.headers.contains("x-request-id: "), "{}", answer.headers);
    }
    assert!(server.get("/slots").headers.contains("x-should-retry: false"));
    // What asks for answers of a certain form is refused by name, in every dialect's words.
    for field in ["grammar", "json_schema", "structured_outputs", "guided_json", "guided_choice"] {
        for path in ["/v1/completions", "/completion", "/v1/chat/completions"] {
            let messages = json!([{"role": "user", "content": "a"}]);
            let answer = server.post(path, &json!({"prompt": "a", "messages": messages, field: {"a": 1}}));
            assert_eq!(
                (answer.status, answer.json()["error"]["param"].as_str()),
                (400, Some(field)),
                "{path}"
            );
        }
    }
    // Connections that never finish their request hold up nobody.
    let silent: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"POST / HTTP/1.1\r\nHost:").expect("it listens");
            stream
        })
        .collect();
    let start = Instant::now();
    assert_eq!(server.post("/tokenize", &json!({"content": "Once"})).status, 200);
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(silent);
}

/// After SIGTERM requests are taken for a while, then refused, and what runs is finished.
#[test]
#[cfg(unix)]
fn sigterm_lets_answers_end() {
    let mut server = Server::start(&[]);
    let asked = Instant::now();
    server.signal("-TERM");
    while server.get("/health").status == 200 {
        assert!(asked.elapsed() < Duration::from_secs(1), "it looks unhealthy at once");
    }
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "Once", "max_tokens": 1})).status, 200);
    assert_eq!(server.ended(), Some(0));
    assert!(asked.elapsed() >= Duration::from_millis(1900), "load balancers look away slowly");
    // A second SIGTERM does not wait.
    let mut server = Server::start(&[]);
    server.signal("-TERM");
    std::thread::sleep(Duration::from_millis(200));
    let again = Instant::now();
    server.signal("-TERM");
    assert_eq!(server.ended(), Some(0));
    assert!(again.elapsed() < Duration::from_millis(1500));
    let mut server = Server::start(&[]);
    server.signal("-INT");
    assert_eq!(server.ended(), Some(130));
}

#[test]
fn what_is_counted_bears_the_names_that_routers_know() {
    let server = Server::start(&["--alias", "a model"]);
    let request = json!({"prompt": "Once upon a time ".repeat(20), "max_tokens": 5});
    assert_eq!(server.post("/v1/completions", &request).status, 200);
    let again = server.post("/v1/completions", &request).json();
    let cached = again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a number");
    assert!(cached >= 32, "the second request finds the prefix: {again}");
    let metrics = server.get("/metrics").body;
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name) && !line.starts_with('#'));
        let line = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
        line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).expect("a number")
    };
    assert_eq!(value("llamacpp:tokens_predicted_total"), 10.0);
    assert_eq!(value("llamacpp:prompt_tokens_cached_total"), cached as f64);
    assert_eq!(value("vllm:prefix_cache_hits_total{"), cached as f64);
    assert_eq!(value("vllm:num_requests_running{"), 0.0);
    assert_eq!(value("vllm:kv_cache_usage_perc{"), 0.0);
    assert_eq!(value("vllm:request_success_total{"), 2.0);
    assert_eq!(value("llamacpp:n_tokens_max"), (again["usage"]["total_tokens"]).as_f64().expect("a number"));
    assert!(value("llamacpp:n_decode_total") >= 9.0);
    let drafted = value("llamacpp:spec_decode_num_draft_tokens_total");
    assert!(value("llamacpp:spec_decode_num_accepted_tokens_total") <= drafted);
    assert!(value("llamacpp:predicted_tokens_seconds") > 0.0);
    assert!(metrics.contains("# TYPE llamacpp:n_tokens_max counter"), "{metrics}");
    // Rates are of what came since the metrics were last asked for.
    assert!(server.get("/metrics").body.contains("\nllamacpp:predicted_tokens_seconds 0"));
    assert!(metrics.contains("block_size=\"32\"") && metrics.contains("model_name=\"a model\""), "{metrics}");
    for histogram in
        ["time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds"]
    {
        assert!(value(&format!("vllm:{histogram}_count{{")) > 0.0);
    }
}

/// What llama-server's clients and its own tests read beyond the answer itself.
#[test]
fn llama_servers_further_fields_stand_beside_the_answer() {
    // Beyond the model's 512 positions: these are taken.
    let server = Server::start(&["--ctx", "4096", "--chat-template", "chatml"]);
    let fields = ["content", "generation_settings/n_predict", "generation_settings/logit_bias", "no/such"];
    let request = json!({"prompt": "Once upon a time", "n_predict": 3, "ignore_eos": true,
        "response_fields": fields});
    let answer = server.post("/completion", &request).json();
    assert_eq!(answer.as_object().map(|answer| answer.len()), Some(3), "{answer}");
    assert_eq!(answer["generation_settings/n_predict"], 3);
    let biases = answer["generation_settings/logit_bias"].as_array().expect("a list");
    assert!(!biases.is_empty() && biases.iter().all(|bias| bias["bias"].is_null()), "{answer}");
    for (count, truncated) in [(3, false), (-1, true)] {
        let request = json!({"prompt": "Once upon a time", "n_predict": count, "ignore_eos": true});
        let answer = server.post("/completion", &request).json();
        assert_eq!(answer["truncated"], truncated, "{count}: {answer}");
    }
    let request = json!({"prompt": "Once upon a time ".repeat(20), "n_predict": 2, "stream": true,
        "return_progress": true, "timings_per_token": true});
    let stream = server.post("/completion", &request).body;
    let events = stream.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok());
    let progress: Vec<Value> = events.filter(|event: &Value| event["prompt_progress"].is_object()).collect();
    let [first, .., last] = &progress[..] else { panic!("{stream}") };
    assert_eq!(first["prompt_progress"]["processed"], first["prompt_progress"]["cache"]);
    assert_eq!(first["timings"]["prompt_ms"], 0.0);
    assert_eq!(last["prompt_progress"]["processed"], last["prompt_progress"]["total"]);
    let talk = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let prompt = server.post("/apply-template", &talk).json();
    assert_eq!(prompt["prompt"], "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    // As in transformers: a start token is the template's to write, and this one writes none.
    let tokens = server.post("/tokenize", &json!({"content": prompt["prompt"], "add_special": false})).json();
    let count = server.post("/v1/chat/completions/input_tokens", &talk).json();
    assert_eq!(count["input_tokens"].as_u64(), tokens["tokens"].as_array().map(|all| all.len() as u64));
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("\n# TYPE llamacpp:prompt_tokens_total counter\n"), "{metrics}");
    assert!(!metrics.contains("# EOF"), "{metrics}");
}

/// A slot's prompt goes to a file and comes back after the server was started again. Names that lead out of
/// the folder are refused.
#[test]
fn slots_are_saved_restored_and_erased() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path");
    let flags = ["--parallel", "2", "--slot-save-path", path];
    let request = json!({"prompt": "Once upon a time ".repeat(20), "n_predict": 5, "temperature": 0,
        "id_slot": 1});
    let ask = |server: &Server| {
        let answer = server.post("/completion", &request).json();
        assert_eq!(answer["id_slot"], 1, "{answer}");
        (answer["content"].clone(), answer["timings"]["cache_n"].as_u64().expect("a number"))
    };
    let act = |server: &Server, what: &str, file: &str| {
        server.post(&format!("/slots/{what}"), &json!({"filename": file}))
    };
    let server = Server::start(&flags);
    let (text, found) = ask(&server);
    assert_eq!(found, 0);
    let saved = act(&server, "1?action=save", "a prompt").json();
    let count = saved["n_saved"].as_u64().expect("a number");
    assert!(count >= 32 && count % 32 == 0, "{saved}");
    assert_eq!(ask(&server), (text.clone(), count));
    assert_eq!(server.post("/slots/1?action=erase", &json!({})).json()["n_erased"], count);
    assert_eq!(ask(&server), (text.clone(), 0));
    drop(server);
    let server = Server::start(&flags);
    let restored = act(&server, "0?action=restore", "a prompt").json();
    assert_eq!((&restored["n_restored"], &restored["n_read"]), (&json!(count), &saved["n_written"]));
    assert_eq!(ask(&server), (text, count));
    for (what, file) in [
        ("1?action=restore", "none"),
        ("1?action=save", "../a prompt"),
        ("1?action=save", ""),
        ("2?action=save", "a prompt"),
        ("-1?action=save", "a prompt"),
        ("1?action=drop", "a prompt"),
        ("1", "a prompt"),
    ] {
        assert_eq!(act(&server, what, file).error(), (400, "invalid_request_error".into()), "{what} {file}");
    }
    std::fs::write(folder.path().join("odd"), b"{}").expect("a file");
    std::fs::create_dir(folder.path().join("folder")).expect("a folder");
    // Each bit that flips is noticed.
    let whole = std::fs::read(folder.path().join("a prompt")).expect("the file");
    for at in (8..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        std::fs::write(folder.path().join("damaged"), damaged).expect("a file");
        assert_eq!(act(&server, "1?action=restore", "damaged").status, 400, "a bit of byte {at}");
    }
    for (what, file) in [("restore", "odd"), ("restore", "folder"), ("save", "folder")] {
        let refused = act(&server, &format!("1?action={what}"), file);
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("filename")));
        assert!(!refused.body.contains(path), "it says nothing of the folder: {}", refused.body);
    }
    // What the cache has lost does not replace what was saved.
    assert_eq!(server.post("/slots/1?action=erase", &json!({})).status, 200);
    assert_eq!(act(&server, "1?action=save", "a prompt").status, 400);
    assert_eq!(std::fs::read(folder.path().join("a prompt")).expect("the file"), whole);
    let server = Server::start(&[]);
    assert_eq!(act(&server, "1?action=save", "a prompt").error(), (501, "not_supported_error".into()));
}

/// Where the context is full, a text goes on with --context-shift, and otherwise ends.
/// A request's scale of an adapter counts for it alone; the server's for those that name none.
#[test]
fn adapters_apply_as_far_as_asked() {
    let folder = crate::adapters::of_the_built_in_model();
    let path = folder.path().to_str().expect("UTF-8");
    let server = Server::start(&["--lora", path, "--parallel", "2", "--slot-save-path", path]);
    let listed = server.get("/lora-adapters").json();
    assert_eq!(listed, json!([{"id": 0, "path": path, "scale": 1.0}]));
    let prompt = "Once upon a time there was a little girl named Lily. She loved to play outside in the park \
                  with her friends. One day she saw a big dog";
    let text = |fields: Value| {
        let mut body = json!({"prompt": prompt, "n_predict": 16, "temperature": 0});
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        let answer = server.post("/completion", &body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["content"].as_str().expect("a text").to_owned()
    };
    let plain = Server::start(&[]);
    let alone = plain.post("/completion", &json!({"prompt": prompt, "n_predict": 16, "temperature": 0}));
    let alone = alone.json()["content"].as_str().expect("a text").to_owned();
    let whole = text(json!({}));
    assert_ne!(whole, alone);
    assert_eq!(text(json!({"lora": [{"id": 0, "scale": 0}]})), alone);
    assert_eq!(text(json!({"lora": []})), alone);
    assert_eq!(text(json!({"lora": [{"id": 0, "scale": 1.0}]})), whole);
    let half = text(json!({"lora": [{"id": 0, "scale": 0.5}]}));
    // Other endpoints of the same prompt.
    let completion = |model: &Server, fields: Value| {
        let mut body =
            json!({"prompt": prompt, "max_tokens": 16, "temperature": 0, "logprobs": 1, "echo": true});
        body.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        model.post("/v1/completions", &body).json()["choices"][0].clone()
    };
    assert_eq!(completion(&server, json!({"lora": []})), completion(&plain, json!({})));
    assert_ne!(completion(&server, json!({})), completion(&plain, json!({})));
    let set = server.post("/lora-adapters", &json!([{"id": 0, "scale": 0.5}]));
    assert_eq!((set.status, set.json()), (200, json!({"success": true})));
    assert_eq!(text(json!({})), half);
    assert_eq!(server.get("/lora-adapters").json()[0]["scale"], 0.5);
    // A prompt is saved with its scales, and found by requests with the same.
    text(json!({"id_slot": 1, "lora": [{"id": 0, "scale": 0.25}]}));
    let saved = server.post("/slots/1?action=save", &json!({"filename": "quarter"})).json();
    assert_ne!(saved["n_saved"], 0, "{saved}");
    server.post("/slots/1?action=erase", &json!({}));
    let quarter = json!({"prompt": prompt, "n_predict": 1, "lora": [{"id": 0, "scale": 0.25}]});
    let restored = server.post("/slots/0?action=restore", &json!({"filename": "quarter"})).json();
    assert_eq!(restored["n_restored"], saved["n_saved"]);
    assert_eq!(server.post("/completion", &quarter).json()["timings"]["cache_n"], saved["n_saved"]);
    for (path, wrong, word) in [
        ("/completion", json!({"prompt": "a", "lora": [{"id": 1, "scale": 1}]}), "the adapter 1"),
        ("/completion", json!({"prompt": "a", "lora": [{"id": 0}]}), "scale"),
        ("/completion", json!({"prompt": "a", "lora": 3}), "lora"),
        ("/v1/chat/completions", json!({"messages": [], "lora": [{"id": -1, "scale": 1}]}), "lora"),
        ("/lora-adapters", json!({"id": 0, "scale": 1}), "list"),
        ("/lora-adapters", json!([{"id": 7, "scale": 1}]), "the adapter 7"),
    ] {
        let answer = server.post(path, &wrong);
        assert_eq!(answer.status, 400, "{path} {wrong}: {}", answer.body);
        assert!(answer.body.contains(word), "{path} {wrong}: {}", answer.body);
    }
    assert_eq!(plain.get("/lora-adapters").json(), json!([]));
    let started = Server::start(&["--lora", path, "--lora-init-without-apply"]);
    assert_eq!(started.get("/lora-adapters").json()[0]["scale"], 0.0);
}

#[test]
fn a_text_goes_on_where_the_context_is_full_if_it_is_to() {
    let request = json!({"prompt": "Once upon a time", "n_predict": 150, "seed": 3, "ignore_eos": true,
        "n_keep": 3});
    for (flag, count) in [("--context-shift", 150), ("--no-context-shift", 59)] {
        let server = Server::start(&["--ctx", "64", flag]);
        let answers = [0, 1].map(|_| server.post("/completion", &request).json());
        assert_eq!(answers[0]["tokens_predicted"], count, "{flag}");
        assert_eq!(answers[0]["timings"]["prompt_n"], 5, "{flag}");
        assert_eq!(answers[0]["truncated"], true, "{flag}");
        assert_eq!(answers[0]["content"], answers[1]["content"], "{flag}");
    }
}

/// A server that sleeps answers what it is without waking, and the next request wakes it.
#[test]
fn an_idle_server_sleeps_until_the_next_request() {
    let server = Server::start(&["--sleep-idle-seconds", "0.2"]);
    let request = json!({"prompt": "Once upon a time", "n_predict": 5, "temperature": 0});
    let text = || server.post("/completion", &request).json()["content"].clone();
    let is_asleep = || server.get("/props").json()["is_sleeping"] == true;
    let before = text();
    let start = Instant::now();
    while !is_asleep() {
        assert!(start.elapsed() < Duration::from_secs(30), "it falls asleep");
        std::thread::sleep(Duration::from_millis(20));
    }
    for path in ["/health", "/v1/models", "/metrics", "/slots"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    assert!(is_asleep());
    assert_eq!(text(), before);
}

/// What a request does not say is as the flags say.
#[test]
fn flags_say_how_tokens_are_picked() {
    let texts = |flags: &[&str], fields: Value| {
        let server = Server::start(flags);
        let answer = server.post("/v1/completions", &fields);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["choices"][0]["text"].clone()
    };
    let asked = |fields: Value| {
        let mut request = json!({"prompt": "Once upon a time", "max_tokens": 60, "seed": 3});
        request.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
        request
    };
    let flags = "--temp 1.5 --top-k 5 --top-p 0.9 --min-p 0.01 --repeat-penalty 1.3 --presence-penalty -0.5 \
                 --frequency-penalty 0.2";
    let flags: Vec<_> = flags.split(' ').filter(|flag| !flag.is_empty()).collect();
    let fields = json!({
        "temperature": 1.5, "top_k": 5, "top_p": 0.9, "min_p": 0.01, "repeat_penalty": 1.3,
        "presence_penalty": -0.5, "frequency_penalty": 0.2,
    });
    let plain = texts(&[], asked(json!({})));
    let by_flags = texts(&flags, asked(json!({})));
    assert_eq!(by_flags, texts(&[], asked(fields)));
    assert_ne!(by_flags, plain);
    let greedy = texts(&["--repeat-penalty", "1.3"], asked(json!({"temperature": 0})));
    assert_eq!(greedy, texts(&[], asked(json!({"temperature": 0, "repeat_penalty": 1.3}))));
}

/// What asks for something that is so anyway has no effect; what would change answers is refused.
#[test]
fn command_lines_of_llama_server_start_it() {
    let arguments = "-ngl 99 -fa on -fa -b 2048 -ub 512 -tb 2 -cb --jinja --no-mmap --mlock --no-warmup \
                     --props --embeddings --metrics --timeout 600 -to 600 --threads-http 4 -c 0 -n -1 -s -1 \
                     -a name --no-webui --log-disable -ctk q8_0 -ctv q8_0 --api-key one,two --offline";
    let server = Server::start(&arguments.split_whitespace().collect::<Vec<_>>());
    let get = |path: &str| server.ask("GET", path, "Authorization: Bearer two\r\n", b"");
    assert_eq!(get("/v1/models").json()["data"][0]["id"], "name");
    assert_eq!(get("/").status, 404);
    let props = get("/props").json()["default_generation_settings"].clone();
    assert_eq!((&props["n_ctx"], &props["params"]["n_predict"]), (&json!(512), &json!(-1)));
    for refused in [
        "-ctk f16 -ctv q8_0",
        "--cache-type q9",
        "--slot-save-path nowhere",
        "--grammar-file a.gbnf",
        "-fa -ngl",
        "-n -2",
        "--rope-scale 2",
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgpt"));
        let output = command.arg("serve").args(refused.split(' ')).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(2), "{refused}");
    }
    // No layer is on a GPU.
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpt"));
    let output = command.args(["serve", "-ngl", "0", "--require-gpu", "--port", "0"]).output();
    assert_eq!(output.expect("the program starts").status.code(), Some(4));
}

#[test]
fn the_description_names_every_endpoint_that_takes_a_body() {
    let server = Server::start(&[]);
    let description = server.get("/openapi.json").json();
    for path in [
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/embeddings",
        "/completion",
        "/tokenize",
        "/detokenize",
        "/apply-template",
        "/slots/{id}",
    ] {
        let body =
            &description["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        assert!(body.is_object(), "{path}");
    }
    assert_eq!(description["components"]["schemas"]["TokenId"]["maximum"], 511);
}
