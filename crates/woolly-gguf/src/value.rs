//! Metadata values: the twelve scalar types and strings, and arrays of them.

use std::fmt;

use crate::array::Array;

/// The type of a metadata value, with its number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ValueType {
    /// 8-bit unsigned integer.
    U8 = 0,
    /// 8-bit signed integer.
    I8 = 1,
    /// 16-bit unsigned integer.
    U16 = 2,
    /// 16-bit signed integer.
    I16 = 3,
    /// 32-bit unsigned integer.
    U32 = 4,
    /// 32-bit signed integer.
    I32 = 5,
    /// 32-bit float.
    F32 = 6,
    /// One byte, 0 or 1.
    Bool = 7,
    /// UTF-8 text with its length.
    String = 8,
    /// Elements of one type with their number.
    Array = 9,
    /// 64-bit unsigned integer.
    U64 = 10,
    /// 64-bit signed integer.
    I64 = 11,
    /// 64-bit float.
    F64 = 12,
}

impl ValueType {
    const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::F32,
        Self::Bool,
        Self::String,
        Self::Array,
        Self::U64,
        Self::I64,
        Self::F64,
    ];

    /// Returns the type with the number `id` in the file, or `None` if there is none.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(id).ok()?).copied()
    }

    /// Returns the number of the type in the file.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// Returns the name of the type in this crate's terms, for example `u32` or `string`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::I8 => "i8",
            Self::U16 => "u16",
            Self::I16 => "i16",
            Self::U32 => "u32",
            Self::I32 => "i32",
            Self::F32 => "f32",
            Self::Bool => "bool",
            Self::String => "string",
            Self::Array => "array",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// Returns the bytes that a value takes in the file, or `None` for strings and arrays, whose size varies.
    pub const fn scalar_bytes(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// 8-bit unsigned integer.
    U8(u8),
    /// 8-bit signed integer.
    I8(i8),
    /// 16-bit unsigned integer.
    U16(u16),
    /// 16-bit signed integer.
    I16(i16),
    /// 32-bit unsigned integer.
    U32(u32),
    /// 32-bit signed integer.
    I32(i32),
    /// 32-bit float.
    F32(f32),
    /// Truth value.
    Bool(bool),
    /// UTF-8 text.
    String(Box<str>),
    /// Elements of one type.
    Array(Array),
    /// 64-bit unsigned integer.
    U64(u64),
    /// 64-bit signed integer.
    I64(i64),
    /// 64-bit float.
    F64(f64),
}

impl Value {
    /// Makes a string array; the strings may be any bytes.
    pub fn strings<S: AsRef<[u8]>>(strings: impl IntoIterator<Item = S>) -> Self {
        Self::Array(Array::Strings(strings.into_iter().collect()))
    }

    /// Returns the type of the value.
    pub const fn ty(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// Returns the value of an integer of any width, which `i128` always holds; `None` for other types.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }

    /// Returns the value of a float of either width; `None` for other types, integers included.
    pub fn as_float(&self) -> Option<f64> {
        match *self {
            Self::F32(v) => Some(v.into()),
            Self::F64(v) => Some(v),
            _ => None,
        }
    }

    /// Returns the text of a string; `None` for other types.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Type and value for error messages, with long texts cut.
    pub(crate) fn describe(&self) -> String {
        const SHOWN: usize = 40;
        match self {
            Self::String(text) => match text.char_indices().nth(SHOWN) {
                Some((end, _)) => format!("string {:?}…", text.get(..end).unwrap_or_default()),
                None => format!("string {text:?}"),
            },
            Self::Array(array) => array.to_string(),
            scalar => format!("{} {scalar}", scalar.ty()),
        }
    }

    /// Reads a scalar from exactly `ty.scalar_bytes()` little-endian bytes; `None` for any other length, for strings
    /// and arrays, and for a boolean that is neither 0 nor 1.
    pub(crate) fn from_le_bytes(ty: ValueType, bytes: &[u8]) -> Option<Self> {
        Some(match ty {
            ValueType::U8 => Self::U8(u8::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I8 => Self::I8(i8::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U16 => Self::U16(u16::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I16 => Self::I16(i16::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U32 => Self::U32(u32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I32 => Self::I32(i32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::F32 => Self::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::U64 => Self::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::I64 => Self::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::F64 => Self::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
            ValueType::Bool => match bytes {
                [0] => Self::Bool(false),
                [1] => Self::Bool(true),
                _ => return None,
            },
            ValueType::String | ValueType::Array => return None,
        })
    }
}

/// Scalars as numbers, strings as they are, arrays as type and length: `[f32; 32000]`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(v) => v.fmt(f),
            Self::I8(v) => v.fmt(f),
            Self::U16(v) => v.fmt(f),
            Self::I16(v) => v.fmt(f),
            Self::U32(v) => v.fmt(f),
            Self::I32(v) => v.fmt(f),
            Self::F32(v) => v.fmt(f),
            Self::Bool(v) => v.fmt(f),
            Self::String(v) => v.fmt(f),
            Self::Array(v) => v.fmt(f),
            Self::U64(v) => v.fmt(f),
            Self::I64(v) => v.fmt(f),
            Self::F64(v) => v.fmt(f),
        }
    }
}

/// Conversions from the Rust type of each scalar and from slices, arrays and vectors of it.
macro_rules! conversions {
    ($($rust:ty => $variant:ident),+ $(,)?) => {$(
        impl From<$rust> for Value {
            fn from(value: $rust) -> Self {
                Self::$variant(value)
            }
        }

        impl From<&[$rust]> for Value {
            fn from(values: &[$rust]) -> Self {
                let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                Self::Array(Array::from_scalar_bytes(ValueType::$variant, bytes))
            }
        }

        impl<const N: usize> From<[$rust; N]> for Value {
            fn from(values: [$rust; N]) -> Self {
                values.as_slice().into()
            }
        }

        impl From<Vec<$rust>> for Value {
            fn from(values: Vec<$rust>) -> Self {
                values.as_slice().into()
            }
        }
    )+};
}

conversions! {
    u8 => U8, i8 => I8, u16 => U16, i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64, f32 => F32, f64 => F64,
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<&[bool]> for Value {
    fn from(values: &[bool]) -> Self {
        Self::Array(Array::from_scalar_bytes(ValueType::Bool, values.iter().map(|&v| v.into()).collect()))
    }
}

impl<const N: usize> From<[bool; N]> for Value {
    fn from(values: [bool; N]) -> Self {
        values.as_slice().into()
    }
}

impl From<Vec<bool>> for Value {
    fn from(values: Vec<bool>) -> Self {
        values.as_slice().into()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl<const N: usize> From<[&str; N]> for Value {
    fn from(strings: [&str; N]) -> Self {
        Self::strings(strings)
    }
}

impl From<&[&str]> for Value {
    fn from(strings: &[&str]) -> Self {
        Self::strings(strings)
    }
}

impl From<Vec<String>> for Value {
    fn from(strings: Vec<String>) -> Self {
        Self::strings(strings)
    }
}

impl From<Array> for Value {
    fn from(array: Array) -> Self {
        Self::Array(array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_numbers_are_those_of_the_specification() {
        for (id, ty) in ValueType::ALL.into_iter().enumerate() {
            assert_eq!(ty.id() as usize, id);
            assert_eq!(ValueType::from_id(ty.id()), Some(ty));
        }
        assert_eq!(ValueType::from_id(13), None);
        assert_eq!(ValueType::from_id(u32::MAX), None);
    }

    #[test]
    fn scalars_come_back_from_their_bytes() {
        let cases: [(Value, &[u8]); 11] = [
            (200u8.into(), &[200]),
            ((-2i8).into(), &[254]),
            (0x0102u16.into(), &[2, 1]),
            ((-2i16).into(), &[254, 255]),
            (1u32.into(), &[1, 0, 0, 0]),
            ((-1i32).into(), &[255; 4]),
            (1.0f32.into(), &[0, 0, 128, 63]),
            (true.into(), &[1]),
            (u64::MAX.into(), &[255; 8]),
            (i64::MIN.into(), &[0, 0, 0, 0, 0, 0, 0, 128]),
            (2.0f64.into(), &[0, 0, 0, 0, 0, 0, 0, 64]),
        ];
        for (value, bytes) in cases {
            assert_eq!(Value::from_le_bytes(value.ty(), bytes), Some(value));
        }
    }

    #[test]
    fn wrong_bytes_are_no_scalar() {
        let cases: [(ValueType, &[u8], &str); 4] = [
            (ValueType::Bool, &[2], "neither false nor true"),
            (ValueType::U32, &[0; 3], "too short"),
            (ValueType::U8, &[0; 2], "too long"),
            (ValueType::String, &[], "of varying size"),
        ];
        for (ty, bytes, why) in cases {
            assert_eq!(Value::from_le_bytes(ty, bytes), None, "{why}");
        }
    }

    #[test]
    fn descriptions_stay_short() {
        assert_eq!(Value::from(7u32).describe(), "u32 7");
        assert_eq!(Value::from([1.0f32, 2.0]).describe(), "[f32; 2]");
        assert!(Value::from("x".repeat(10_000)).describe().len() < 100);
    }
}
