//! Named values: options of clients and topologies, attributes of plugins.

use std::ffi::c_void;
use std::{fmt, mem, ptr};

use crate::api::{slice, to_string};
use crate::sys;

/// The value of an option or attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum OptionValue {
    /// Text.
    Str(String),
    /// An integer.
    Int(i64),
    /// A truth value.
    Bool(bool),
    /// A floating-point number.
    Float(f32),
    /// A list of integers.
    IntList(Vec<i64>),
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Str(value) => f.write_str(value),
            Self::Int(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::IntList(value) => write!(f, "{value:?}"),
        }
    }
}

/// `values` as C takes them; valid while `values` is.
pub(crate) fn to_c(values: &[(String, OptionValue)]) -> Vec<sys::PJRT_NamedValue> {
    let named = |(name, value): &(String, OptionValue)| {
        use sys::PJRT_NamedValue_Value as Value;
        let (type_, value, value_size) = match value {
            OptionValue::Str(v) => (sys::PJRT_NamedValue_kString, Value { string_value: v.as_ptr().cast() }, v.len()),
            OptionValue::Int(v) => (sys::PJRT_NamedValue_kInt64, Value { int64_value: *v }, 1),
            OptionValue::Bool(v) => (sys::PJRT_NamedValue_kBool, Value { bool_value: *v }, 1),
            OptionValue::Float(v) => (sys::PJRT_NamedValue_kFloat, Value { float_value: *v }, 1),
            OptionValue::IntList(v) => {
                (sys::PJRT_NamedValue_kInt64List, Value { int64_array_value: v.as_ptr() }, v.len())
            }
        };
        sys::PJRT_NamedValue {
            struct_size: mem::size_of::<sys::PJRT_NamedValue>(),
            extension_start: ptr::null_mut::<c_void>(),
            name: name.as_ptr().cast(),
            name_size: name.len(),
            type_,
            value,
            value_size,
        }
    };
    values.iter().map(named).collect()
}

/// Copies named values out of a plugin, leaving out those of unknown type.
///
/// # Safety
/// `values` points to `count` named values whose pointers are valid, or `count` is 0.
pub(crate) unsafe fn from_c(values: *const sys::PJRT_NamedValue, count: usize) -> Vec<(String, OptionValue)> {
    // SAFETY: promised by the caller.
    let values = unsafe { slice(values, count) };
    let mut out = Vec::with_capacity(count);
    for named in values {
        // SAFETY: `type_` says which field of the union is set, and the caller promises valid pointers.
        let (name, value) = unsafe {
            let value = match named.type_ {
                sys::PJRT_NamedValue_kString => OptionValue::Str(to_string(named.value.string_value, named.value_size)),
                sys::PJRT_NamedValue_kInt64 => OptionValue::Int(named.value.int64_value),
                sys::PJRT_NamedValue_kBool => OptionValue::Bool(named.value.bool_value),
                sys::PJRT_NamedValue_kFloat => OptionValue::Float(named.value.float_value),
                sys::PJRT_NamedValue_kInt64List => {
                    OptionValue::IntList(slice(named.value.int64_array_value, named.value_size).to_vec())
                }
                _ => continue,
            };
            (to_string(named.name, named.name_size), value)
        };
        out.push((name, value));
    }
    out
}
