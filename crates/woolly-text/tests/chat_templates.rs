//! Conformance with the renderings of published chat templates: every template of the folder, every case.

use std::fs;
use std::path::Path;

use serde_json::Value;
use woolly_testdata::{files_ending_in, folder};
use woolly_text::{ChatTemplate, Error, LocalTime, RenderInput};

/// Of a thousand judged renderings, so many must agree.
///
/// Not all do: one template adds plain strings to strings marked `safe`. Python escapes the plain ones for HTML then, even
/// with escaping turned off (`&#34;` for a quotation mark); the template engine here does not, and has no hook for it.
const REQUIRED_PER_MILLE: usize = 996;

/// The inputs all templates are rendered with.
struct Inputs {
    bos: String,
    eos: String,
    now: LocalTime,
    cases: Vec<Value>,
}

#[test]
fn published_templates_render_as_expected() {
    let Some(dir) = folder("published_templates_render_as_expected", "chat-templates") else { return };
    let inputs = read_inputs(&dir.join("cases.json"));
    let templates = files_ending_in(&dir.join("templates"), ".jinja");
    assert!(!templates.is_empty(), "no templates in {}", dir.display());
    let (mut judged, mut failures) = (0, Vec::new());
    for path in &templates {
        check_template(path, &dir, &inputs, &mut judged, &mut failures);
    }
    let agreed = judged - failures.len();
    let listed = failures.join("\n");
    println!("{agreed} of {judged} judged renderings of {} templates agree", templates.len());
    assert!(agreed * 1000 >= judged * REQUIRED_PER_MILLE, "{agreed} of {judged} judged renderings agree\n{listed}");
}

fn check_template(path: &Path, dir: &Path, inputs: &Inputs, judged: &mut usize, failures: &mut Vec<String>) {
    let name = path.file_name().expect("a file").to_string_lossy().into_owned();
    let template = ChatTemplate::new(&fs::read_to_string(path).expect("a template"), &inputs.bos, &inputs.eos);
    let expected = ["", ".jinja"].iter().find_map(|suffix| {
        let stem = name.trim_end_matches(".jinja");
        fs::read_to_string(dir.join("renderings").join(format!("{stem}{suffix}.json"))).ok()
    });
    let expected: Value =
        serde_json::from_str(&expected.unwrap_or_else(|| panic!("no renderings of {name}"))).expect("JSON");
    for case in &inputs.cases {
        let case_name = case["name"].as_str().expect("a name");
        let wanted = &expected["results"][case_name];
        if !is_judged(wanted) {
            continue;
        }
        *judged += 1;
        if let Some(difference) = compare(wanted, template.render(&input(case, inputs.now))) {
            failures.push(format!("{name} / {case_name}: {difference}"));
        }
    }
}

fn is_judged(wanted: &Value) -> bool {
    wanted["text"].is_string() || wanted["error"] == "raised"
}

fn compare(wanted: &Value, found: Result<String, Error>) -> Option<String> {
    match (wanted["text"].as_str(), found) {
        (Some(wanted), Ok(found)) if wanted == found => None,
        (Some(wanted), Ok(found)) => Some(first_difference(wanted, &found)),
        (Some(_), Err(error)) => Some(format!("unexpected error: {error}")),
        (None, Err(_)) => None,
        (None, Ok(_)) => Some("rendered, but should have raised an error".to_owned()),
    }
}

fn first_difference(wanted: &str, found: &str) -> String {
    let same: usize = wanted.chars().zip(found.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let from = wanted[..same].char_indices().rev().nth(30).map_or(0, |(at, _)| at);
    let excerpt = |text: &str| text[from..].chars().take(100).collect::<String>();
    format!("at byte {same}\n  wanted {:?}\n  found  {:?}", excerpt(wanted), excerpt(found))
}

fn input(case: &Value, now: LocalTime) -> RenderInput<'_> {
    RenderInput {
        tools: case.get("tools"),
        add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap_or(true),
        variables: case.get("kwargs").and_then(Value::as_object),
        now,
        ..RenderInput::new(&case["messages"])
    }
}

fn read_inputs(path: &Path) -> Inputs {
    let parsed: Value = serde_json::from_str(&fs::read_to_string(path).expect("cases")).expect("JSON");
    let text = |key: &str| parsed[key].as_str().expect("a string").to_owned();
    Inputs {
        bos: text("bos_token"),
        eos: text("eos_token"),
        now: parse_time(&text("now")),
        cases: parsed["cases"].as_array().expect("an array").clone(),
    }
}

/// Parses `YYYY-MM-DDTHH:MM:SS`.
fn parse_time(text: &str) -> LocalTime {
    let numbers: Vec<i64> = text.split(['-', 'T', ':']).map(|part| part.parse().expect("a number")).collect();
    let [year, month, day, hour, minute, second] = numbers[..] else { panic!("not a time: {text}") };
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let length = |month: i64| match month {
        2 => 28 + i64::from(leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let years: i64 = (1970..year).map(|year| 365 + i64::from(leap(year))).sum();
    let days = years + (1..month).map(length).sum::<i64>() + day - 1;
    LocalTime::from_unix(days * 86_400 + hour * 3600 + minute * 60 + second)
}
