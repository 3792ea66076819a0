//! Conversations: templates are compared with what transformers renders, and `wgpt chat` runs as a program.

use crate::{
    models::engine,
    support::{On, adapter_name, path},
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    process::{Command, Stdio},
};
use wgpt::{
    chat::{Message, Template},
    engine::{Engine, EngineOptions},
    model::Model,
    sampling::Sampling,
};

/// Each template and conversation of tests/fixtures/chat.py gives the same text as in transformers, or is
/// rejected if transformers rejects it.
#[test]
fn templates_render_as_transformers_renders_them() {
    let text = std::fs::read(path("fixtures/chat.json")).expect("a file");
    let found: Value = serde_json::from_slice(&text).expect("JSON");
    let special = [("bos_token", "<s>"), ("eos_token", "</s>")];
    let special = BTreeMap::from(special.map(|(name, token)| (name.to_owned(), token.to_owned())));
    let mut checked = 0;
    for fixture in found.as_array().expect("a list") {
        let name = fixture["name"].as_str().expect("a name");
        let text = fixture["template"].as_str().expect("a text");
        let template = Template::new(name, text, special.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
        for case in fixture["cases"].as_array().expect("a list") {
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).expect("messages");
            let got = template.render(&messages, case["add_generation_prompt"] == true);
            assert_eq!(got.as_deref().ok(), case["text"].as_str(), "{name}: {messages:?}");
            checked += 1;
        }
    }
    assert_eq!(checked, 75, "all cases are there");
}

/// Each template of tests/fixtures/jinja.py gives the same text as in transformers, or is rejected if
/// transformers rejects it. WGPT_TEST_JINJA names a file of more such cases.
#[test]
fn jinja_is_what_transformers_renders() {
    let more = std::env::var_os("WGPT_TEST_JINJA").map(std::path::PathBuf::from);
    let mut wrong = Vec::new();
    for file in [Some(path("fixtures/jinja.json")), more].into_iter().flatten() {
        let found: Vec<Value> = serde_json::from_slice(&std::fs::read(file).expect("a file")).expect("JSON");
        assert!(found.len() >= 80, "all cases are there");
        for case in found {
            let template = case["template"].as_str().expect("a text");
            let messages: Vec<Message> = serde_json::from_value(case["messages"].clone()).expect("messages");
            let special = [("bos_token", "<s>"), ("eos_token", "</s>")];
            let special = special.map(|(name, token)| (name.to_owned(), token.to_owned())).into();
            let got = Template::new("a test", template, special)
                .and_then(|template| template.render(&messages, case["add_generation_prompt"] == true));
            if got.as_deref().ok() != case["text"].as_str() {
                wrong.push(format!("{template}\n   gave {got:?}\n   not {}", case["text"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Templates that would take all time, all memory or all of the stack are refused in one sentence.
#[test]
fn templates_are_bounded() {
    let in_loop = |change: &str, after: &str| {
        format!("{{% set n = namespace(x=[1]) %}}{{% for i in range(90000) %}}{change}{{% endfor %}}{after}")
    };
    let nested = in_loop("{% set n.x = [n.x] %}", "{{ n.x ~ 'a' }}");
    let doubled = in_loop("{% set n.x = n.x + n.x %}", "{{ n.x|length }}");
    let looped = in_loop(&in_loop("", ""), "");
    let sum = format!("{{{{ 1{} }}}}", "+1".repeat(50_000));
    let conditions = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(50_000));
    let brackets = format!("{{{{ {}1{} }}}}", "(".repeat(500), ")".repeat(500));
    for (template, reason) in [
        (&*nested, "at most 100 deep"),
        (&doubled, "too long or too much memory"),
        (&looped, "too long or too much memory"),
        (&sum, "at most 2000 words"),
        (&conditions, "at most 500 conditions"),
        (&brackets, "recursion"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ range(10**9) }}", "at most 100000 numbers"),
        ("{{ 'a' * 10**10 }}", "too long or too much memory"),
        ("{{ '{:>10000000000}'.format(1) }}", "too long or too much memory"),
        ("{{ 'a'.ljust(10**12) }}", "too long or too much memory"),
        ("{{ '%10000000000s' % 1 }}", "too long or too much memory"),
        ("{{ '%*d' % (10**10, 1) }}", "too long or too much memory"),
        ("{{ [1]|tojson(indent=10**12) }}", "too long or too much memory"),
        ("{% set n = namespace() %}{% set n.x = [n] %}{{ n ~ 'a' }}", "cannot hold a namespace"),
        ("{% for x in [1] %}{% with %}{% break %}{% endwith %}{% endfor %}", "cannot leave a block with"),
        ("{% include 'chat' %}", "a chat template is one file"),
        ("{{ raise_exception('Be nice.') }}", "refuses this conversation: Be nice."),
    ] {
        let rendered = Template::new("a test", template, BTreeMap::new())
            .and_then(|template| template.render(&[Message::new("user", "Hi")], true));
        let error = rendered.expect_err("too much").to_string();
        let start = template.chars().take(90).collect::<String>();
        assert!(error.contains(reason) && !error.contains('\n') && error.len() < 400, "{start}: {error}");
    }
}

/// The tokens that continue a prompt, and how many of the prompt's tokens were computed.
fn resume(engine: &mut Engine, prompt: &[u32], taken: usize) -> (Vec<u32>, usize) {
    let mut generation = engine.generate(prompt, Sampling::GREEDY, 40).expect("a prompt that fits");
    let tokens = generation.by_ref().take(taken).map(|id| id.expect("a token")).collect();
    (tokens, generation.timing().prefill_tokens)
}

/// Turns that begin like what is in the cache are not computed again, and what follows does not change: after
/// a whole answer, after an answer that was left in the middle, after a turn that was changed, and with a
/// prompt that has nothing in common. Whole blocks are found: those of prompts, and, if an engine shares what
/// decoding wrote, those of answers.
#[test]
fn what_is_in_the_cache_is_not_computed_again() {
    let (model, tokenizer) = Model::built_in().expect("the built-in model");
    let ids = |text: &str| tokenizer.encode(text, false).expect("ids");
    for (on, share_decoded) in On::ALL.into_iter().flat_map(|on| [(on, false), (on, true)]) {
        let options = EngineOptions { share_decoded, ..EngineOptions::default() };
        let Some(mut one) = engine(&model, on, options) else { return };
        let mut fresh = engine(&model, on, EngineOptions::default()).expect("it opened before");
        let mut expected = |prompt: &[u32]| -> Vec<u32> {
            let generation = fresh.generate(prompt, Sampling::GREEDY, 40).expect("a prompt that fits");
            generation.map(|id| id.expect("a token")).collect()
        };
        // The number of tokens that are computed of a prompt, if the cache knows its first `known` tokens.
        let computed = |prompt: &[u32], known: usize| prompt.len() - known.min(prompt.len() - 1) / 32 * 32;
        let mut said = tokenizer.encode("Once upon a time there was a dog", true).expect("ids");
        said.extend(ids(" and a cat and a bird").repeat(5));
        let whole = expected(&said);
        let first = said.len();
        assert_eq!(resume(&mut one, &said, 40), (whole.clone(), first), "{on:?}");
        // The last token of an answer was returned, but has not run.
        said.extend(&whole);
        let known = if share_decoded { said.len() - 1 } else { first };
        said.extend(ids(" Then the cat"));
        let second = expected(&said);
        assert_eq!(resume(&mut one, &said, 7), (second[..7].to_vec(), computed(&said, known)), "{on:?}");
        let half = said.iter().chain(&second[..5]).copied().chain(ids(" and")).collect::<Vec<_>>();
        assert_eq!(resume(&mut one, &half, 40), (expected(&half), computed(&half, said.len())), "{on:?}");
        let other = [&said[..40], &ids("But no")].concat();
        assert_eq!(resume(&mut one, &other, 40), (expected(&other), computed(&other, 40)), "{on:?}");
        let new = ids("The end");
        assert_eq!(resume(&mut one, &new, 40), (expected(&new), new.len()), "{on:?}");
    }
}

/// Each line is a turn. Only answers go to stdout. When the context is full the oldest turns are dropped, and
/// stderr says so.
#[test]
fn lines_on_stdin_are_turns() {
    let chat = |more: &[&str], lines: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgpt"));
        command.args(["chat", "--device", "cpu", "-n", "12", "--greedy"]).args(more);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        // A program that rejects its arguments ends before it reads stdin.
        let _ = child.stdin.take().expect("piped").write_all(lines.as_bytes());
        let output = child.wait_with_output().expect("it ends");
        let [out, err] = [output.stdout, output.stderr].map(|b| String::from_utf8(b).expect("UTF-8"));
        (output.status.code(), out, err)
    };
    let (code, one, err) = chat(&[], "Tell me of a dog.\n");
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("no chat template") && one.trim().len() > 10 && one.ends_with('\n'), "{one} {err}");
    let (_, two, _) = chat(&[], "Tell me of a dog.\n\nAnd of a cat.");
    assert!(two.starts_with(&one) && two.len() > one.len(), "{two:?} after {one:?}");
    assert_ne!(chat(&["--system", "Be sad."], "Tell me of a dog.\n").1, one);
    let (code, many, err) = chat(&["--ctx", "64"], &"Tell me of a dog.\n".repeat(5));
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("are forgotten") && many.lines().count() >= 5, "{many} {err}");
    let (code, _, err) = chat(&["-n", "0"], "Tell me of a dog.\n");
    assert_eq!(code, Some(2), "{err}");
    let (code, out, err) =
        chat(&["--ctx", "16"], "Tell me of a dog and of a cat and of all that they did.\n");
    assert_eq!((code, &*out), (Some(2), ""), "{err}");
    assert!(!chat(&["--stop", "a"], "Tell me of a dog.\n").1.contains('a'));
}

/// SIGINT ends a conversation whose lines are piped in, as it ends every other command.
#[cfg(unix)]
#[test]
fn sigint_ends_piped_conversations_with_130() {
    let Some(adapter) = adapter_name() else { return };
    let mut command = Command::new(env!("CARGO_BIN_EXE_wgpt"));
    command.args([
        "chat",
        "-n",
        "400",
        "--temperature",
        "1.5",
        "--stop",
        "?!",
        "--quiet",
        "--device",
        &adapter,
    ]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all("Tell me of a dog.\n".repeat(50).as_bytes()).expect("it reads");
    child.stdout.as_mut().expect("piped").read_exact(&mut [0; 8]).expect("a beginning");
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(interrupted.success());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130));
}
