//! Dependencies point down only: every crate has a layer, and may depend on crates of lower layers alone.

use std::fs;
use std::path::Path;

/// The layer of every crate, as ARCHITECTURE.md draws them.
const LAYERS: [(&str, u32); 12] = [
    ("woolly-testdata", 0),
    ("woolly-quant", 0),
    ("woolly-gguf", 1),
    ("woolly-tensor", 1),
    ("woolly-cpu", 2),
    ("woolly-model", 3),
    ("woolly-text", 3),
    ("woolly-engine", 4),
    ("woolly", 5),
    ("woolly-server", 6),
    ("woolly-bench", 6),
    ("woolly-cli", 7),
];

/// Returns a line for every dependency that does not point down and every crate without a layer.
pub(crate) fn findings(root: &Path) -> Vec<String> {
    let mut findings = Vec::new();
    for manifest in manifests(root) {
        match fs::read_to_string(&manifest).map_err(|e| e.to_string()).and_then(|text| check(&text)) {
            Ok(found) => findings.extend(found),
            Err(error) => findings.push(format!("{}: {error}", manifest.display())),
        }
    }
    findings
}

fn manifests(root: &Path) -> Vec<std::path::PathBuf> {
    let crates = fs::read_dir(root.join("crates")).into_iter().flatten();
    crates.filter_map(|entry| Some(entry.ok()?.path().join("Cargo.toml"))).filter(|path| path.is_file()).collect()
}

/// Checks one manifest's text.
fn check(manifest: &str) -> Result<Vec<String>, String> {
    let manifest: toml::Table = manifest.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let name = manifest.get("package").and_then(|p| p.get("name")).and_then(|n| n.as_str()).unwrap_or_default();
    let Some(layer) = layer(name) else {
        return Ok(vec![format!("crate `{name}` has no layer: add it to LAYERS and to ARCHITECTURE.md")]);
    };
    let used = ["dependencies", "build-dependencies"].iter().filter_map(|section| manifest.get(*section)?.as_table());
    let ours = used.flat_map(|table| table.keys()).filter(|key| *key == "woolly" || key.starts_with("woolly-"));
    Ok(ours.filter_map(|dependency| upward(name, layer, dependency)).collect())
}

fn upward(name: &str, layer: u32, dependency: &str) -> Option<String> {
    match self::layer(dependency) {
        Some(below) if below < layer => None,
        Some(other) => Some(format!("`{name}` (layer {layer}) must not depend on `{dependency}` (layer {other})")),
        None => Some(format!("`{name}` depends on `{dependency}`, which has no layer")),
    }
}

fn layer(name: &str) -> Option<u32> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|&(_, layer)| layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_layered() {
        assert_eq!(findings(&crate::root()), Vec::<String>::new());
    }

    #[test]
    fn an_upward_edge_is_found() {
        let cases = [
            ("[package]\nname='woolly-gguf'\n[dependencies]\nwoolly-quant='1'", 0, "down"),
            ("[package]\nname='woolly-gguf'\n[dependencies]\nwoolly-tensor='1'", 1, "sideways"),
            ("[package]\nname='woolly-gguf'\n[build-dependencies]\nwoolly='1'", 1, "up, at build time"),
            ("[package]\nname='woolly-gguf'\n[dev-dependencies]\nwoolly='1'", 0, "tests may look up"),
            ("[package]\nname='woolly-new'", 1, "unknown crate"),
        ];
        for (manifest, expected, why) in cases {
            assert_eq!(check(manifest).expect("valid TOML").len(), expected, "{why}");
        }
    }
}
