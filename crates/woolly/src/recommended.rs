//! The sampling that a model file recommends.

use woolly_engine::SamplingParams;
use woolly_gguf::Metadata;

use crate::Error;

/// Returns the default sampling, changed where the keys `general.sampling.*` say so.
///
/// `temp`, `top_k`, `top_p`, `min_p`, `penalty_repeat` and `penalty_last_n` are honoured, with llama.cpp's meaning: a
/// count of -1 is "all". Other keys of that name ask for samplers that do not exist here and are left alone.
///
/// # Errors
/// [`Error::Gguf`] where a key holds no number. Numbers out of range are found when sampling begins.
pub(crate) fn sampling(metadata: &Metadata) -> Result<SamplingParams, Error> {
    let number = |name: &str| -> Result<Option<f32>, Error> { Ok(metadata.f32(&key(name))?) };
    let count = |name: &str, all: usize| -> Result<Option<usize>, Error> {
        let found = metadata.i64(&key(name))?;
        Ok(found.map(|count| usize::try_from(count).unwrap_or(all)))
    };
    let default = SamplingParams::default();
    Ok(SamplingParams {
        temperature: number("temp")?.unwrap_or(default.temperature),
        top_k: count("top_k", 0)?.unwrap_or(default.top_k),
        top_p: number("top_p")?.unwrap_or(default.top_p),
        min_p: number("min_p")?.unwrap_or(default.min_p),
        repeat_penalty: number("penalty_repeat")?.unwrap_or(default.repeat_penalty),
        repeat_last_n: count("penalty_last_n", usize::MAX)?.unwrap_or(default.repeat_last_n),
        ..default
    })
}

fn key(name: &str) -> String {
    format!("general.sampling.{name}")
}

#[cfg(test)]
mod tests {
    use woolly_gguf::Value;

    use super::*;

    #[test]
    fn the_file_changes_what_it_names_and_nothing_else() {
        assert_eq!(sampling(&Metadata::new()).ok(), Some(SamplingParams::default()));
        let mut metadata = Metadata::new();
        for (name, value) in
            [("temp", Value::F32(0.25)), ("penalty_repeat", Value::F32(1.5)), ("top_p", Value::F32(0.5))]
        {
            metadata.insert(&key(name), value);
        }
        for (name, value) in [("top_k", Value::I32(7)), ("penalty_last_n", Value::I32(-1))] {
            metadata.insert(&key(name), value);
        }
        let expected = SamplingParams {
            temperature: 0.25,
            top_k: 7,
            top_p: 0.5,
            repeat_penalty: 1.5,
            repeat_last_n: usize::MAX,
            ..SamplingParams::default()
        };
        assert_eq!(sampling(&metadata).ok(), Some(expected));
        metadata.insert(&key("temp"), Value::String("hot".into()));
        assert!(sampling(&metadata).is_err_and(|error| error.to_string().contains("general.sampling.temp")));
    }
}
