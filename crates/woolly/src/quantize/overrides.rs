//! Types by tensor name: `attn_v=q6_K`, as llama.cpp's quantiser takes them.

use std::str::FromStr;

use regex_lite::Regex;
use woolly_quant::TensorType;

use super::QuantizeError;

/// A type for all weights whose name a pattern matches.
#[derive(Clone, Debug)]
pub struct TypeOverride {
    pattern: Regex,
    ty: TensorType,
}

impl TypeOverride {
    /// Makes an override of a regular expression, which may match anywhere in a name.
    ///
    /// # Errors
    /// [`QuantizeError::Pattern`] when `pattern` is no regular expression.
    pub fn new(pattern: &str, ty: TensorType) -> Result<Self, QuantizeError> {
        let wrong = |error: regex_lite::Error| refused(pattern, &error.to_string());
        // An empty one would match everything, which nobody means.
        let given = if pattern.is_empty() { Err(refused(pattern, "the pattern is empty")) } else { Ok(pattern) };
        Ok(Self { pattern: Regex::new(given?).map_err(wrong)?, ty })
    }

    /// Returns the pattern.
    pub fn pattern(&self) -> &str {
        self.pattern.as_str()
    }

    /// Returns the type.
    pub fn ty(&self) -> TensorType {
        self.ty
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        self.pattern.is_match(name)
    }
}

/// Reads `PATTERN=TYPE`; the last `=` divides.
impl FromStr for TypeOverride {
    type Err = QuantizeError;

    fn from_str(text: &str) -> Result<Self, QuantizeError> {
        let (pattern, ty) = text.rsplit_once('=').ok_or_else(|| refused(text, "there is no `=`"))?;
        Self::new(pattern, ty.parse().map_err(|_| refused(text, &format!("`{ty}` is no tensor type")))?)
    }
}

fn refused(text: &str, why: &str) -> QuantizeError {
    QuantizeError::Pattern { text: text.to_owned(), why: why.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_anywhere_in_a_name() {
        let cases = [
            ("attn_v=q6_K", "blk.3.attn_v.weight", true),
            ("attn_v=q6_K", "blk.3.attn_k.weight", false),
            (r"blk\.(0|1)\.ffn_down=Q8_0", "blk.1.ffn_down.weight", true),
            (r"blk\.(0|1)\.ffn_down=Q8_0", "blk.11.ffn_down.weight", false),
            ("^output=f16", "output.weight", true),
            ("^output=f16", "blk.0.attn_output.weight", false),
        ];
        for (text, name, expected) in cases {
            assert_eq!(text.parse::<TypeOverride>().expect(text).matches(name), expected, "{text} {name}");
        }
    }

    #[test]
    fn what_is_no_override_is_an_error_that_repeats_it() {
        for text in ["", "attn_v", "=q4_K", "attn_v=", "attn_v=q4_k_m", "(=q4_K"] {
            let error = text.parse::<TypeOverride>().expect_err(text);
            assert!(matches!(error, QuantizeError::Pattern { .. }), "{error}");
        }
    }
}
