//! Attention weights and each layer's predictions, compared with transformers, and `wgpt inspect --prompt`
//! run as a program.

use crate::{
    models::engine,
    support::{Fixture, On, path},
};
use serde_json::Value;
use std::ops::ControlFlow;
use std::process::Command;
use wgpt::{
    engine::{Engine, EngineOptions, Insight},
    error::Result,
    model::Model,
};

fn looking(model: &Model, on: On) -> Option<Engine> {
    engine(model, on, EngineOptions { insight: true, ..EngineOptions::default() })
}

fn insight(engine: &mut Engine, tokens: &[u32], candidates: usize) -> Result<Insight> {
    let outcome = engine.insight(tokens, candidates, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(outcome.expect("nobody breaks it off"))
}

/// The attention weights of each head and the predictions of each layer (tests/fixtures/insight.py).
#[test]
fn heads_and_layers_are_as_transformers_has_them() {
    let text = std::fs::read(path("fixtures/insight.json")).expect("a file");
    let cases: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(cases.len(), 5);
    for case in &cases {
        fn of<T: serde::de::DeserializeOwned>(case: &Value, field: &str) -> T {
            serde_json::from_value(case[field].clone()).unwrap_or_else(|e| panic!("{field}: {e}"))
        }
        let fixture = Fixture::open(case["model"].as_str().expect("a name"));
        let tokens: Vec<u32> = of(case, "tokens");
        let ids: Vec<Vec<Vec<u32>>> = of(case, "ids");
        let probabilities: Vec<Vec<Vec<f32>>> = of(case, "probabilities");
        let attention: Vec<Vec<Vec<Vec<f32>>>> = of(case, "attention");
        for on in On::ALL {
            let Some(mut engine) = looking(&fixture.model, on) else { continue };
            let insight = insight(&mut engine, &tokens, 3).expect("a prompt that fits");
            let what = format!("{} on {on:?}", fixture.name);
            assert_eq!(insight.lens.len(), ids.len(), "{what}");
            for (layer, ((got, ids), probabilities)) in
                insight.lens.iter().zip(&ids).zip(&probabilities).enumerate()
            {
                for (row, ((got, ids), probabilities)) in got.iter().zip(ids).zip(probabilities).enumerate() {
                    for ((got, id), probability) in got.iter().zip(ids).zip(probabilities) {
                        assert!(
                            (got.probability - probability).abs() < 1e-4,
                            "{what}, layer {layer}, row {row}: {got:?}"
                        );
                        assert_eq!(got.id, *id, "{what}, layer {layer}, row {row}");
                    }
                }
            }
            let shape = |of: &Vec<Vec<Vec<Vec<f32>>>>| -> Vec<usize> {
                of.iter().flatten().flatten().map(Vec::len).collect()
            };
            assert_eq!(shape(&insight.attention), shape(&attention), "{what}");
            let both = insight.attention.iter().flatten().flatten().flatten();
            for (got, expected) in both.zip(attention.iter().flatten().flatten().flatten()) {
                assert!((got - expected).abs() < 1e-5, "{what}: {got} for {expected}");
            }
        }
    }
}

/// A prompt of several chunks, inspected twice. The candidates of the last layer are the model's own
/// predictions.
#[test]
fn a_long_prompt_is_looked_into_in_chunks() {
    let (model, _) = Model::built_in().expect("the built-in model");
    let tokens: Vec<u32> = (0..200).map(|i| 1 + i * 37 % 500).collect();
    for on in [On::Cpu, On::Gpu] {
        let Some(mut inside) = looking(&model, on) else { continue };
        let found = insight(&mut inside, &tokens, 1).expect("a prompt that fits");
        assert_eq!(insight(&mut inside, &tokens, 1).expect("once more"), found, "{on:?}");
        let last = found.lens.last().expect("layers");
        assert_eq!(last.len(), tokens.len());
        let mut scoring = engine(&model, on, EngineOptions { scores: true, ..EngineOptions::default() })
            .expect("it opened");
        for (row, logits) in scoring.predictions(&tokens, 1).expect("a text").enumerate() {
            assert_eq!(
                last[row][0].id,
                wgpt::sampling::greedy(&logits.expect("logits")),
                "row {row} on {on:?}"
            );
        }
        for weights in found.attention.iter().flatten().flatten() {
            assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{on:?}: {weights:?}");
        }
        let mut calls = 0;
        let broken_off = inside.insight(&tokens, 1, &mut |done, all| {
            calls += 1;
            assert!(done == calls && all > 6);
            if done == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!((broken_off.expect("a prompt that fits"), calls), (None, 3));
        // What was broken off left only some layers in the cache: nothing of it may be found there.
        let mut fresh = looking(&model, on).expect("it opened");
        let other: Vec<u32> = tokens.iter().rev().copied().collect();
        let stops = &mut |done, _| if done == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        assert_eq!(inside.insight(&other, 1, stops).expect("a prompt that fits"), None);
        let score = |engine: &mut Engine| engine.logprobs(&other, 150).expect("a text that fits");
        assert_eq!(score(&mut inside), score(&mut fresh), "{on:?}");
        assert!(insight(&mut inside, &[1; 257], 1).is_err_and(|e| e.exit_code() == 2));
    }
}

#[test]
fn inspect_shows_what_goes_on_while_a_prompt_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("page.html");
    let run = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wgpt"));
        command.args(["inspect", "--device", "cpu", "--prompt", "Once upon a </script> time"]).args(more);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let text = run(&["--html", page.to_str().expect("UTF-8")]);
    assert!(text.contains("layer 4") && text.contains(" upon") && text.contains(" %"), "{text}");
    let seen: Value = serde_json::from_str(&run(&["--json"])).expect("JSON");
    let (n, heads) =
        (seen["tokens"].as_array().expect("tokens").len(), seen["heads"].as_u64().expect("heads"));
    assert_eq!(seen["lens"].as_array().expect("layers").len(), 6);
    assert_eq!(seen["attention"][4][heads as usize - 1][n - 1].as_array().expect("a row").len(), n);
    let page = std::fs::read_to_string(page).expect("a page");
    let template = include_str!("../src/cli/inspect/page.html");
    let scripts = |page: &str| page.matches("</script>").count();
    assert_eq!(scripts(&page), scripts(template), "a text ends no script");
    assert!(page.contains("\"tokens\":[{\"id\":1,") && !page.contains("://"), "it stands by itself");
}
