//! One file's bytes become its metadata and tensor descriptions; tensor data is located but never touched.

use std::collections::HashSet;

use woolly_quant::TensorType;

use crate::array::{Array, MAX_ARRAY_DEPTH, ScalarArray, StringArray};
use crate::bytes::SharedBytes;
use crate::cursor::{Cursor, Field};
use crate::error::{Error, KeyFault, TensorFault};
use crate::foreign::refuse_foreign;
use crate::metadata::Metadata;
use crate::tensor::{Dims, MAX_DIMS, TensorInfo, check_name_length};
use crate::value::{Value, ValueType};

pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_KEY_BYTES: u64 = 65_535;

/// What one file says.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) version: u32,
    pub(crate) alignment: u64,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
}

/// Reads everything but the tensor data and checks that all of it lies within the file.
pub(crate) fn parse(bytes: &SharedBytes) -> Result<Parsed, Error> {
    refuse_foreign(bytes)?;
    let mut cursor = Cursor::new(bytes);
    let header = Header::read(&mut cursor)?;
    let metadata = read_metadata(&mut cursor, header.entries)?;
    let alignment = alignment_of(&metadata)?;
    let described = read_descriptions(&mut cursor, header.tensors)?;
    let tensors = locate(described, cursor.offset(), alignment, bytes)?;
    Ok(Parsed { version: header.version, alignment, metadata, tensors })
}

/// Returns the alignment that `metadata` asks for.
pub(crate) fn alignment_of(metadata: &Metadata) -> Result<u64, Error> {
    metadata
        .get(ALIGNMENT_KEY)
        .map_or(Ok(DEFAULT_ALIGNMENT), check_alignment)
        .map_err(|fault| Error::key(ALIGNMENT_KEY, None, fault))
}

/// Checks that a key is neither empty nor too long.
pub(crate) fn check_key_length(bytes: u64) -> Result<(), KeyFault> {
    match bytes {
        0 => Err(KeyFault::Empty),
        bytes if bytes > MAX_KEY_BYTES => Err(KeyFault::TooLong { bytes }),
        _ => Ok(()),
    }
}

fn check_alignment(value: &Value) -> Result<u64, KeyFault> {
    match *value {
        Value::U32(alignment) if alignment.is_power_of_two() && alignment >= 8 => Ok(alignment.into()),
        ref other => Err(KeyFault::BadAlignment { found: other.describe() }),
    }
}

struct Header {
    version: u32,
    tensors: u64,
    entries: u64,
}

impl Header {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Error> {
        cursor.u32(Field::Magic)?;
        let version = cursor.u32(Field::Version)?;
        match version {
            1 => cursor.use_narrow_lengths(),
            2 | 3 => {}
            _ => return Err(Error::UnsupportedVersion { version }),
        }
        let length = cursor.length_bytes();
        // The smallest entries: a key (its length), a type and a byte; a name, one dimension, a type and an offset.
        let tensors = cursor.count(length + 4 + length + 4 + 8, Field::TensorCount)?;
        let entries = cursor.count(length + 4 + 1, Field::EntryCount)?;
        if tensors == 0 && entries == 0 {
            return Err(Error::NoContent);
        }
        Ok(Self { version, tensors, entries })
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata, Error> {
    let mut metadata = Metadata::new();
    for number in 0..count {
        let key_offset = cursor.offset();
        let key = read_key(cursor, number)?;
        let value_offset = cursor.offset();
        let value = read_value(cursor, key)?;
        if key == ALIGNMENT_KEY {
            check_alignment(&value).map_err(|fault| Error::key(key, Some(value_offset), fault))?;
        }
        if metadata.insert(key, value).is_some() {
            return Err(Error::key(key, Some(key_offset), KeyFault::Duplicate));
        }
    }
    Ok(metadata)
}

fn read_key<'a>(cursor: &mut Cursor<'a>, number: u64) -> Result<&'a str, Error> {
    let offset = cursor.offset();
    let length = cursor.length(Field::Key(number))?;
    check_key_length(length).map_err(|fault| Error::key(&format!("#{number}"), Some(offset), fault))?;
    cursor.text(length, Field::Key(number))
}

fn read_type(cursor: &mut Cursor<'_>, key: &str) -> Result<ValueType, Error> {
    let offset = cursor.offset();
    let id = cursor.u32(Field::TypeOf(key))?;
    ValueType::from_id(id).ok_or_else(|| Error::key(key, Some(offset), KeyFault::UnknownType { id }))
}

fn read_value(cursor: &mut Cursor<'_>, key: &str) -> Result<Value, Error> {
    match read_type(cursor, key)? {
        ValueType::String => {
            let length = cursor.length(Field::ValueOf(key))?;
            Ok(Value::String(cursor.text(length, Field::ValueOf(key))?.into()))
        }
        ValueType::Array => read_array(cursor, key, 1).map(Value::Array),
        scalar => read_scalar(cursor, key, scalar),
    }
}

fn read_scalar(cursor: &mut Cursor<'_>, key: &str, ty: ValueType) -> Result<Value, Error> {
    let offset = cursor.offset();
    let bytes = cursor.take(ty.scalar_bytes().unwrap_or_default() as u64, Field::ValueOf(key))?;
    // The length is right, so only a boolean can be refused.
    Value::from_le_bytes(ty, bytes).ok_or_else(|| invalid_bool(key, offset, bytes))
}

fn invalid_bool(key: &str, offset: u64, bytes: &[u8]) -> Error {
    let byte = bytes.iter().copied().find(|&byte| byte > 1).unwrap_or_default();
    Error::key(key, Some(offset), KeyFault::InvalidBool { byte })
}

fn read_array(cursor: &mut Cursor<'_>, key: &str, depth: usize) -> Result<Array, Error> {
    let offset = cursor.offset();
    if depth > MAX_ARRAY_DEPTH {
        return Err(Error::key(key, Some(offset), KeyFault::TooDeep));
    }
    match read_type(cursor, key)? {
        ValueType::String => read_strings(cursor, key).map(Array::Strings),
        ValueType::Array => read_arrays(cursor, key, depth),
        scalar => read_scalars(cursor, key, scalar),
    }
}

fn read_arrays(cursor: &mut Cursor<'_>, key: &str, depth: usize) -> Result<Array, Error> {
    let count = cursor.count(4 + cursor.length_bytes(), Field::LengthOf(key))?;
    (0..count)
        .map(|_| read_array(cursor, key, depth + 1))
        .collect::<Result<Vec<_>, _>>()
        .map(|a| Array::Arrays(a.into()))
}

fn read_scalars(cursor: &mut Cursor<'_>, key: &str, ty: ValueType) -> Result<Array, Error> {
    let size = ty.scalar_bytes().unwrap_or(1);
    let count = cursor.count(size, Field::LengthOf(key))?;
    let (offset, start) = (cursor.offset(), cursor.position());
    // `count` elements fit into the rest of the file, so the product cannot overflow.
    let bytes = cursor.take(count * size as u64, Field::ValueOf(key))?;
    if ty == ValueType::Bool
        && let Some(index) = bytes.iter().position(|&byte| byte > 1)
    {
        return Err(invalid_bool(key, offset + index as u64, bytes));
    }
    Ok(Array::Scalars(ScalarArray::from_checked(ty, cursor.since(start))))
}

/// One walk over the length fields checks every string and notes where it ends.
fn read_strings(cursor: &mut Cursor<'_>, key: &str) -> Result<StringArray, Error> {
    /// The index of a larger array grows as its strings turn out to exist.
    const RESERVED_AT_ONCE: usize = 1 << 16;
    let count = cursor.count(cursor.length_bytes(), Field::LengthOf(key))?;
    let (offset, start) = (cursor.offset(), cursor.position());
    let mut ends = Vec::with_capacity(usize::try_from(count).unwrap_or(usize::MAX).min(RESERVED_AT_ONCE));
    for index in 0..count {
        let length = cursor.length(Field::ElementOf(key, index))?;
        cursor.take(length, Field::ElementOf(key, index))?;
        let end = u32::try_from(cursor.position() - start);
        ends.push(end.map_err(|_| Error::key(key, Some(offset), KeyFault::StringsTooLarge))?);
    }
    Ok(StringArray::from_checked(cursor.since(start), cursor.length_bytes(), ends))
}

/// A tensor whose description was read, but not yet compared with the length of the file.
struct Described<'a> {
    name: &'a str,
    ty: TensorType,
    dims: Dims,
    elements: u64,
    byte_len: u64,
    /// From the start of the data section.
    data_offset: u64,
    described_at: u64,
}

impl Described<'_> {
    fn error(&self, fault: TensorFault) -> Error {
        Error::tensor(self.name, Some(self.described_at), fault)
    }
}

fn read_descriptions<'a>(cursor: &mut Cursor<'a>, count: u64) -> Result<Vec<Described<'a>>, Error> {
    let mut described = Vec::new();
    let mut names = HashSet::new();
    for number in 0..count {
        let tensor = read_description(cursor, number)?;
        if !names.insert(tensor.name) {
            return Err(tensor.error(TensorFault::Duplicate));
        }
        described.push(tensor);
    }
    Ok(described)
}

fn read_description<'a>(cursor: &mut Cursor<'a>, number: u64) -> Result<Described<'a>, Error> {
    let described_at = cursor.offset();
    let length = cursor.length(Field::TensorName(number))?;
    check_name_length(length).map_err(|fault| Error::tensor(&format!("#{number}"), Some(described_at), fault))?;
    let name = cursor.text(length, Field::TensorName(number))?;
    let fault = |fault| Error::tensor(name, Some(described_at), fault);
    let dims = read_dims(cursor, name)?.map_err(fault)?;
    let id = cursor.u32(Field::TensorInfo(name))?;
    let ty = TensorType::from_id(id).ok_or_else(|| fault(TensorFault::UnknownType { id }))?;
    let data_offset = cursor.u64(Field::TensorInfo(name))?;
    let elements = dims.elements().map_err(fault)?;
    let byte_len = dims.byte_len(ty).map_err(fault)?;
    Ok(Described { name, ty, dims, elements, byte_len, data_offset, described_at })
}

/// The outer error is a file cut short, the inner one a fault of the dimensions.
fn read_dims(cursor: &mut Cursor<'_>, name: &str) -> Result<Result<Dims, TensorFault>, Error> {
    let count = cursor.u32(Field::TensorInfo(name))?;
    let mut sizes = [0; MAX_DIMS];
    let Some(sizes) = sizes.get_mut(..count as usize) else {
        return Ok(Err(TensorFault::Dimensions { count: count.into() }));
    };
    for size in sizes.iter_mut() {
        *size = cursor.length(Field::TensorInfo(name))?;
    }
    Ok(Dims::new(sizes))
}

/// Finds the data of each tensor and checks that it is aligned, inside the file and nobody else's.
fn locate(
    described: Vec<Described<'_>>,
    descriptions_end: u64,
    alignment: u64,
    bytes: &SharedBytes,
) -> Result<Vec<TensorInfo>, Error> {
    let data_start = descriptions_end.next_multiple_of(alignment);
    let spans = described.iter().map(|tensor| span(tensor, data_start, alignment)).collect::<Result<Vec<_>, _>>()?;
    check_inside(&described, &spans, bytes.len() as u64)?;
    check_disjoint(&described, &spans)?;
    let infos = described.into_iter().zip(spans).map(|(tensor, span)| info(&tensor, span, bytes));
    infos.collect()
}

/// Where data begins and ends, from the start of the file.
#[derive(Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
}

fn span(tensor: &Described<'_>, data_start: u64, alignment: u64) -> Result<Span, Error> {
    let offset = tensor.data_offset;
    if !offset.is_multiple_of(alignment) {
        return Err(tensor.error(TensorFault::Unaligned { offset, alignment }));
    }
    let start = data_start.checked_add(offset);
    let span = start.and_then(|start| Some(Span { start, end: start.checked_add(tensor.byte_len)? }));
    span.ok_or_else(|| tensor.error(TensorFault::OffsetTooLarge { offset }))
}

fn check_inside(described: &[Described<'_>], spans: &[Span], available: u64) -> Result<(), Error> {
    let outside = described.iter().zip(spans).find(|(_, span)| span.end > available);
    let Some((tensor, span)) = outside else { return Ok(()) };
    let needed = spans.iter().map(|span| span.end).max().unwrap_or_default();
    Err(Error::DataTruncated { tensor: tensor.name.to_owned(), offset: span.start, needed, available })
}

fn check_disjoint(described: &[Described<'_>], spans: &[Span]) -> Result<(), Error> {
    let mut by_start: Vec<_> = spans.iter().zip(described).collect();
    by_start.sort_by_key(|(span, _)| span.start);
    for pair in by_start.windows(2) {
        if let [(before, other), (after, tensor)] = pair
            && after.start < before.end
        {
            return Err(tensor.error(TensorFault::Overlap { other: other.name.to_owned() }));
        }
    }
    Ok(())
}

fn info(tensor: &Described<'_>, span: Span, bytes: &SharedBytes) -> Result<TensorInfo, Error> {
    let range = usize::try_from(span.start).ok().zip(usize::try_from(span.end).ok());
    let data = range.and_then(|(start, end)| bytes.slice(start..end));
    let data = data.ok_or_else(|| tensor.error(TensorFault::OffsetTooLarge { offset: tensor.data_offset }))?;
    Ok(TensorInfo {
        name: tensor.name.into(),
        ty: tensor.ty,
        dims: tensor.dims,
        elements: tensor.elements,
        part: 0,
        described_at: tensor.described_at,
        offset: span.start,
        bytes: data,
    })
}
