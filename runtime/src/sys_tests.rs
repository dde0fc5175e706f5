//! Compares [`crate::sys`] with the header that the CPU plugin is built from.

use std::fmt::Write as _;
use std::fs;
use std::mem::{offset_of, size_of};
use std::path::PathBuf;
use std::process::Command;

use crate::sys;

/// The folder of headers beside the XLA libraries that `make setup` fetches.
fn include_folder() -> PathBuf {
    let xla = crate::platform::cache_folder().expect("set HOME or SFT_CACHE").join("xla");
    let versions = fs::read_dir(&xla).unwrap_or_else(|error| panic!("run `make setup` first: {xla:?}: {error}"));
    versions
        .map(|entry| entry.unwrap().path().join("tensorflow/include"))
        .find(|folder| folder.join("xla/pjrt/c/pjrt_c_api.h").is_file())
        .unwrap_or_else(|| panic!("run `make setup` first: there is no pjrt_c_api.h under {xla:?}"))
}

#[test]
fn declarations_agree_with_the_header() {
    let mut c = "#include <stddef.h>\n#include \"xla/pjrt/c/pjrt_c_api.h\"\n".to_owned();
    let mut offset = |name: &str, field: &str, offset: usize| {
        let field = field.trim_end_matches('_'); // `type` is a keyword in Rust.
        writeln!(c, "_Static_assert(offsetof({name}, {field}) == {offset}, \"{name}.{field}\");").unwrap();
    };
    for (name, _, fields) in sys::STRUCTS {
        for (field, at) in *fields {
            offset(name, field, *at);
        }
    }
    for (field, at) in sys::TABLE {
        offset("PJRT_Api", field, *at);
    }
    offset("PJRT_NamedValue", "type", offset_of!(sys::PJRT_NamedValue, type_));
    offset("PJRT_NamedValue", "int64_value", offset_of!(sys::PJRT_NamedValue, value));
    offset("PJRT_NamedValue", "value_size", offset_of!(sys::PJRT_NamedValue, value_size));
    offset("PJRT_Buffer_MemoryLayout_Tiled", "num_tiles", offset_of!(sys::PJRT_Buffer_MemoryLayout_Tiled, num_tiles));
    offset("PJRT_Api_Version", "minor_version", offset_of!(sys::PJRT_Api_Version, minor_version));
    let size = size_of::<sys::PJRT_NamedValue>();
    writeln!(c, "_Static_assert(sizeof(PJRT_NamedValue) == {size}, \"PJRT_NamedValue\");").unwrap();
    for (name, value) in [
        ("PJRT_API_MAJOR", sys::PJRT_API_MAJOR),
        ("PJRT_NamedValue_kString", sys::PJRT_NamedValue_kString),
        ("PJRT_NamedValue_kInt64", sys::PJRT_NamedValue_kInt64),
        ("PJRT_NamedValue_kInt64List", sys::PJRT_NamedValue_kInt64List),
        ("PJRT_NamedValue_kFloat", sys::PJRT_NamedValue_kFloat),
        ("PJRT_NamedValue_kBool", sys::PJRT_NamedValue_kBool),
        (
            "PJRT_HostBufferSemantics_kImmutableUntilTransferCompletes",
            sys::PJRT_HostBufferSemantics_kImmutableUntilTransferCompletes,
        ),
        ("PJRT_Buffer_MemoryLayout_Type_Tiled", sys::PJRT_Buffer_MemoryLayout_Type_Tiled),
        ("PJRT_Buffer_Type_PRED", sys::PJRT_Buffer_Type_PRED),
        ("PJRT_Buffer_Type_S32", sys::PJRT_Buffer_Type_S32),
        ("PJRT_Buffer_Type_S64", sys::PJRT_Buffer_Type_S64),
        ("PJRT_Buffer_Type_U32", sys::PJRT_Buffer_Type_U32),
        ("PJRT_Buffer_Type_F16", sys::PJRT_Buffer_Type_F16),
        ("PJRT_Buffer_Type_F32", sys::PJRT_Buffer_Type_F32),
        ("PJRT_Buffer_Type_F64", sys::PJRT_Buffer_Type_F64),
        ("PJRT_Buffer_Type_BF16", sys::PJRT_Buffer_Type_BF16),
    ] {
        writeln!(c, "_Static_assert({name} == {value}, \"{name}\");").unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("declarations.c");
    fs::write(&file, c).unwrap();
    let compiler = Command::new("gcc")
        .args(["-std=c11", "-fsyntax-only", "-I"])
        .arg(include_folder())
        .arg(&file)
        .output()
        .unwrap();
    assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
}
