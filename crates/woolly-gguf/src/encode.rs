//! The bytes of one GGUF file of version 3: the inverse of the parser, by the same rules.

use std::collections::HashSet;
use std::io::{self, Write};

use woolly_quant::TensorType;

use crate::array::{Array, MAX_ARRAY_DEPTH};
use crate::error::{Error, KeyFault, TensorFault};
use crate::metadata::Metadata;
use crate::parse::{alignment_of, check_key_length};
use crate::tensor::{Dims, check_name_length};
use crate::value::Value;
use crate::writer::TensorSource;

const VERSION: u32 = 3;

/// A tensor that waits to be written.
#[derive(Debug)]
pub(crate) struct Pending<'a> {
    pub(crate) name: String,
    pub(crate) dims: Vec<u64>,
    pub(crate) ty: TensorType,
    pub(crate) source: TensorSource<'a>,
}

impl Pending<'_> {
    pub(crate) fn byte_len(&self) -> Result<u64, Error> {
        let dims = Dims::new(&self.dims).and_then(|dims| dims.elements().and(dims.byte_len(self.ty)));
        dims.map_err(|fault| self.error(fault))
    }

    fn error(&self, fault: TensorFault) -> Error {
        Error::tensor(&self.name, None, fault)
    }
}

pub(crate) fn check_names(tensors: &[Pending<'_>]) -> Result<(), Error> {
    let mut names = HashSet::new();
    for tensor in tensors {
        check_name_length(tensor.name.len() as u64).map_err(|fault| tensor.error(fault))?;
        if !names.insert(tensor.name.as_str()) {
            return Err(tensor.error(TensorFault::Duplicate));
        }
    }
    Ok(())
}

/// Writes one file: header, metadata, descriptions and data, and returns its length.
pub(crate) fn write_part(metadata: &Metadata, tensors: &mut [Pending<'_>], out: &mut dyn Write) -> Result<u64, Error> {
    let alignment = alignment_of(metadata)?;
    let head = encode_head(metadata, tensors, alignment)?;
    out.write_all(&head).map_err(Error::io("write"))?;
    let mut length = head.len() as u64;
    for tensor in tensors {
        length += write_padded(tensor, alignment, out)?;
    }
    Ok(length)
}

/// Everything before the data, padded to where the data begins if there is any.
fn encode_head(metadata: &Metadata, tensors: &[Pending<'_>], alignment: u64) -> Result<Vec<u8>, Error> {
    if metadata.is_empty() && tensors.is_empty() {
        return Err(Error::NoContent);
    }
    check_names(tensors)?;
    let mut head = b"GGUF".to_vec();
    head.extend(VERSION.to_le_bytes());
    put_length(&mut head, tensors.len());
    put_length(&mut head, metadata.len());
    for (key, value) in metadata.iter() {
        encode_entry(&mut head, key, value).map_err(|fault| Error::key(key, None, fault))?;
    }
    encode_descriptions(&mut head, tensors, alignment)?;
    if !tensors.is_empty() {
        head.resize(head.len().next_multiple_of(alignment as usize), 0);
    }
    Ok(head)
}

fn encode_descriptions(out: &mut Vec<u8>, tensors: &[Pending<'_>], alignment: u64) -> Result<(), Error> {
    let mut offset = 0u64;
    for tensor in tensors {
        put_bytes(out, tensor.name.as_bytes());
        out.extend((tensor.dims.len() as u32).to_le_bytes());
        tensor.dims.iter().for_each(|size| out.extend(size.to_le_bytes()));
        out.extend(tensor.ty.id().to_le_bytes());
        out.extend(offset.to_le_bytes());
        let end = offset.checked_add(tensor.byte_len()?).and_then(|end| end.checked_next_multiple_of(alignment));
        offset = end.ok_or_else(|| tensor.error(TensorFault::OffsetTooLarge { offset }))?;
    }
    Ok(())
}

fn write_padded(tensor: &mut Pending<'_>, alignment: u64, out: &mut dyn Write) -> Result<u64, Error> {
    let needed = tensor.byte_len()?;
    let mut counted = Counted { out, written: 0 };
    tensor.source.write(&mut counted).map_err(Error::io("write tensor data"))?;
    let given = counted.written;
    if given != needed {
        return Err(tensor.error(TensorFault::DataLength { given, needed }));
    }
    let padding = needed.next_multiple_of(alignment) - needed;
    io::copy(&mut io::Read::take(io::repeat(0), padding), out).map_err(Error::io("write"))?;
    Ok(needed + padding)
}

/// Counts what passes through.
struct Counted<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend((length as u64).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn encode_entry(out: &mut Vec<u8>, key: &str, value: &Value) -> Result<(), KeyFault> {
    check_key_length(key.len() as u64)?;
    put_bytes(out, key.as_bytes());
    out.extend(value.ty().id().to_le_bytes());
    encode_value(out, value)
}

fn encode_value(out: &mut Vec<u8>, value: &Value) -> Result<(), KeyFault> {
    match value {
        Value::U8(v) => out.extend(v.to_le_bytes()),
        Value::I8(v) => out.extend(v.to_le_bytes()),
        Value::U16(v) => out.extend(v.to_le_bytes()),
        Value::I16(v) => out.extend(v.to_le_bytes()),
        Value::U32(v) => out.extend(v.to_le_bytes()),
        Value::I32(v) => out.extend(v.to_le_bytes()),
        Value::F32(v) => out.extend(v.to_le_bytes()),
        Value::U64(v) => out.extend(v.to_le_bytes()),
        Value::I64(v) => out.extend(v.to_le_bytes()),
        Value::F64(v) => out.extend(v.to_le_bytes()),
        Value::Bool(v) => out.push((*v).into()),
        Value::String(text) => put_bytes(out, text.as_bytes()),
        Value::Array(array) => encode_array(out, array, 1)?,
    }
    Ok(())
}

fn encode_array(out: &mut Vec<u8>, array: &Array, depth: usize) -> Result<(), KeyFault> {
    if depth > MAX_ARRAY_DEPTH {
        return Err(KeyFault::TooDeep);
    }
    out.extend(array.element_type().id().to_le_bytes());
    put_length(out, array.len());
    match array {
        Array::Scalars(scalars) => out.extend_from_slice(scalars.le_bytes()),
        Array::Strings(strings) => strings.iter().for_each(|string| put_bytes(out, string)),
        Array::Arrays(arrays) => arrays.iter().try_for_each(|array| encode_array(out, array, depth + 1))?,
    }
    Ok(())
}
