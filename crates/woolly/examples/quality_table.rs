//! What every quantisation type costs and brings for one model, as a table and a drawing.
//!
//! ```console
//! $ cargo run --release -p woolly --example quality_table -- models/woolly-lamb-Q8_0.gguf docs
//! $ cargo run --release -p woolly --example quality_table -- model-f16.gguf some/folder text.txt
//! ```
//!
//! Every type is made in memory and compared with the model as it is. Without a text the model writes its own, by sampling
//! at temperature 1: divergences are then means over just those predictions that the model makes in use. The first half of
//! the text is for the importance matrix, the second for measuring. The table goes between the two marks in
//! `quantization.md` of the folder, the drawing to `quantization.svg`.

#![allow(clippy::print_stderr, reason = "a program that tells how far it is")]

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use woolly::quantize::{ImportanceMatrix, ImportanceOptions, QuantType, QuantizeOptions, quantize_in_memory};
use woolly::{CompareOptions, Comparison, GGUFLoader, GenerateOptions, Model};

/// Marks in the document between which the table stands.
const MARKS: [&str; 2] = ["<!-- table: written by the example quality_table -->", "<!-- end of the table -->"];
/// How the texts that a model writes begin.
const BEGINNINGS: [&str; 6] = ["Once upon a time", "One day", "There was a little", "Tom", "Anna", "In a small house"];
const STORIES: u64 = 120;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, folder, text @ ..] = &arguments[..] else { return Err("give a model and a folder".into()) };
    let file = GGUFLoader::open(model)?;
    let model = Model::from_gguf(&file)?;
    let text = match text.first() {
        Some(path) => fs::read_to_string(path)?,
        None => own_text(&model)?,
    };
    let middle = text.floor_char_boundary(text.len() / 2);
    let (calibration, measured) = text.split_at(middle);
    let importance = Arc::new(model.importance(calibration, ImportanceOptions::default())?);
    let mut rows = vec![Row::of_original(&file, &model, measured)?];
    for &ty in QuantType::ALL {
        let row = Row::new(&file, &model, measured, ty, &importance)?;
        eprintln!("{}", row.line());
        rows.push(row);
    }
    rows.sort_by(|a, b| b.bits.total_cmp(&a.bits));
    write(Path::new(folder), &rows)
}

/// Samples what the model itself holds to be likely.
fn own_text(model: &Model) -> Result<String, woolly::Error> {
    let mut text = String::new();
    for seed in 0..STORIES {
        let beginning = BEGINNINGS[seed as usize % BEGINNINGS.len()];
        let options = GenerateOptions::new().temperature(1.0).top_k(0).top_p(1.0).min_p(0.0).seed(seed).max_tokens(400);
        let answer = model.generate_with(beginning, options)?;
        text += &format!("{beginning}{}\n", answer.text);
    }
    Ok(text)
}

/// What one type makes of the model.
struct Row {
    name: String,
    bits: f64,
    mebibytes: f64,
    plain: Comparison,
    /// With an importance matrix; `None` for what does not use one.
    weighted: Option<Comparison>,
    tokens_per_second: f64,
}

impl Row {
    fn of_original(file: &GGUFLoader, model: &Model, text: &str) -> Result<Self, woolly::Error> {
        let plain = model.compare(model, text, CompareOptions::default())?;
        let bytes: u64 = file.tensors().iter().map(|tensor| tensor.byte_len()).sum();
        let elements: u64 = file.tensors().iter().map(|tensor| tensor.elements()).sum();
        let (bits, mebibytes) = (bytes as f64 * 8.0 / elements as f64, bytes as f64 / f64::from(1 << 20));
        Ok(Self {
            name: "as it is".to_owned(),
            bits,
            mebibytes,
            plain,
            weighted: None,
            tokens_per_second: speed(model)?,
        })
    }

    fn new(
        file: &GGUFLoader,
        model: &Model,
        text: &str,
        ty: QuantType,
        importance: &Arc<ImportanceMatrix>,
    ) -> Result<Self, woolly::Error> {
        let make = |importance: Option<Arc<ImportanceMatrix>>| {
            let options = QuantizeOptions { allow_requantize: true, importance, ..QuantizeOptions::new(ty) };
            quantize_in_memory(file, QuantizeOptions { without_importance: true, ..options })
        };
        let (made, report) = make(None)?;
        let quantized = Model::from_gguf(&made)?;
        let plain = model.compare(&quantized, text, CompareOptions::default())?;
        let weighted = Model::from_gguf(&make(Some(importance.clone()))?.0)?;
        let weighted = model.compare(&weighted, text, CompareOptions::default())?;
        Ok(Self {
            name: ty.to_string(),
            bits: report.bits_per_weight(),
            mebibytes: report.bytes_after as f64 / f64::from(1 << 20),
            weighted: (weighted.divergence != plain.divergence).then_some(weighted),
            plain,
            tokens_per_second: speed(&quantized)?,
        })
    }

    fn divergence(&self) -> f64 {
        self.plain.divergence.mean
    }

    fn line(&self) -> String {
        let weighted =
            self.weighted.as_ref().map_or("–".to_owned(), |result| format!("{:.5}", result.divergence.mean));
        let Comparison { other, divergence, same_top, .. } = &self.plain;
        format!(
            "| {} | {:.2} | {:.2} | {:.4} | {:.5} ± {:.5} | {:.4} | {weighted} | {:.2} | {:.0} |",
            self.name,
            self.bits,
            self.mebibytes,
            other.value,
            divergence.mean,
            divergence.standard_error,
            divergence.percentile(0.99),
            same_top.0 * 100.0,
            self.tokens_per_second
        )
    }
}

/// Tokens decoded in a second, the best of three short answers.
fn speed(model: &Model) -> Result<f64, woolly::Error> {
    let mut best = 0.0_f64;
    for _ in 0..3 {
        let options = GenerateOptions::new().greedy().ignore_end().max_tokens(128);
        let answer = model.generate_with(BEGINNINGS[0], options)?;
        best = best.max(answer.timings.decode_rate().unwrap_or(0.0));
    }
    Ok(best)
}

fn write(folder: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let scored = rows.first().map_or(0, |row| row.plain.reference.scored);
    let mut table = format!("{}\n\n{scored} tokens scored.\n\n", MARKS[0]);
    table += "| type | bits a weight | MiB | perplexity | divergence | 99 % below | with importance | same likeliest % | tokens/s |\n";
    table += "|---|---|---|---|---|---|---|---|---|\n";
    rows.iter().for_each(|row| table += &format!("{}\n", row.line()));
    table += "\n";
    let path = folder.join("quantization.md");
    let document = fs::read_to_string(&path).unwrap_or_else(|_| format!("{}\n{}\n", MARKS[0], MARKS[1]));
    let (before, rest) = document.split_once(MARKS[0]).ok_or("the document has no mark for the table")?;
    let (_, after) = rest.split_once(MARKS[1]).ok_or("the document has no mark for the end of the table")?;
    fs::write(path, format!("{before}{table}{}{after}", MARKS[1]))?;
    Ok(fs::write(folder.join("quantization.svg"), drawing(rows))?)
}

/// Size against divergence, the latter by powers of ten.
fn drawing(rows: &[Row]) -> String {
    let (width, height, margin) = (900.0, 560.0, 60.0);
    let points: Vec<&Row> = rows.iter().filter(|row| row.divergence() > 1e-7 && row.bits < 10.0).collect();
    let fold = |value: fn(&Row) -> f64, with: fn(f64, f64) -> f64| {
        points.iter().map(|row| value(row)).reduce(with).unwrap_or(1.0)
    };
    let (left, right) = (fold(|row| row.mebibytes, f64::min) * 0.95, fold(|row| row.mebibytes, f64::max) * 1.05);
    let log = |row: &Row| row.divergence().log10();
    let (low, high) = (fold(log, f64::min).floor(), fold(log, f64::max).ceil());
    let x = |mebibytes: f64| margin + (mebibytes - left) / (right - left) * (width - 2.0 * margin);
    let y = |log: f64| height - margin - (log - low) / (high - low).max(1.0) * (height - 2.0 * margin);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for power in low as i32..=high as i32 {
        let at = y(f64::from(power));
        let _ = writeln!(
            svg,
            "<line x1=\"{margin}\" y1=\"{at:.1}\" x2=\"{}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">1e{power}</text>",
            width - margin,
            margin - 6.0,
            at + 4.0
        );
    }
    /// Names further above or below their point get a line to it.
    const FAR: f64 = 5.0;
    let mut places = Places::default();
    for row in &points {
        places.points.push([x(row.mebibytes), y(log(row))]);
        if let Some(weighted) = &row.weighted {
            places.points.push([x(row.mebibytes), y(weighted.divergence.mean.max(1e-9).log10())]);
        }
    }
    for row in points {
        let (at_x, at_y) = (x(row.mebibytes), y(log(row)));
        if let Some(weighted) = &row.weighted {
            let end = y(weighted.divergence.mean.max(1e-9).log10());
            let _ = writeln!(
                svg,
                "<line x1=\"{at_x:.1}\" y1=\"{at_y:.1}\" x2=\"{at_x:.1}\" y2=\"{end:.1}\" stroke=\"#8ab\"/>\
                 <circle cx=\"{at_x:.1}\" cy=\"{end:.1}\" r=\"2.5\" fill=\"white\" stroke=\"#357\"/>"
            );
        }
        let [left, top, right, bottom] = places.take([at_x, at_y], &row.name);
        let (text_x, text_y) = (left, bottom - 1.0);
        if at_y < top - FAR || at_y > bottom + FAR {
            let (end_x, end_y) = (at_x.clamp(left, right), at_y.clamp(top, bottom));
            let _ = writeln!(
                svg,
                "<line x1=\"{at_x:.1}\" y1=\"{at_y:.1}\" x2=\"{end_x:.1}\" y2=\"{end_y:.1}\" stroke=\"#bbb\"/>"
            );
        }
        let _ = writeln!(
            svg,
            "<circle cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"3\" fill=\"#357\"/>\
             <text x=\"{text_x:.1}\" y=\"{text_y:.1}\">{}</text>",
            row.name
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">size of the weights: {left:.1} to {right:.1} MiB</text>\n\
         <text x=\"{margin}\" y=\"24\">mean Kullback-Leibler divergence, nats a token; circles: with an importance matrix</text>\n</svg>",
        width / 2.0,
        height - 20.0
    );
    svg
}

/// Where names stand in the drawing: `[left, top, right, bottom]` of each, and the points they must leave free.
#[derive(Default)]
struct Places {
    points: Vec<[f64; 2]>,
    names: Vec<[f64; 4]>,
}

impl Places {
    /// Takes and returns the nearest free place for a name beside its point, right or left of it and above or below.
    fn take(&mut self, [x, y]: [f64; 2], name: &str) -> [f64; 4] {
        const HEIGHT: f64 = 10.0;
        let width = 7.0 * name.len() as f64;
        let sides = [x + 6.0, x - 6.0 - width];
        let shifts = (0..40).flat_map(|step| [f64::from(step), -f64::from(step)]);
        let places = shifts.flat_map(|shift| sides.map(|left| [left, y - HEIGHT - 1.0 + shift]));
        let boxes = places.map(|[left, top]| [left, top, left + width, top + HEIGHT]);
        let found = boxes.into_iter().find(|place| self.is_free(place));
        let place = found.unwrap_or([sides[0], y - HEIGHT, sides[0] + width, y]);
        self.names.push(place);
        place
    }

    fn is_free(&self, &[left, top, right, bottom]: &[f64; 4]) -> bool {
        const RADIUS: f64 = 3.0;
        let within = |from: f64, at: f64, to: f64| from - RADIUS < at && at < to + RADIUS;
        let meets_point = |&[x, y]: &[f64; 2]| within(left, x, right) && within(top, y, bottom);
        let meets_name = |&[l, t, r, b]: &[f64; 4]| l < right && left < r && t < bottom && top < b;
        !self.points.iter().any(meets_point) && !self.names.iter().any(meets_name)
    }
}
