//! Calling a plugin: padded argument structs, errors, events.

use std::ffi::{c_char, c_int};
use std::mem;

use crate::sys::{self, CStruct};
use crate::{Error, ErrorCode, Result};

/// Zero bytes behind every struct, for the fields of plugins newer than [`sys`]: a plugin refuses a struct shorter than
/// its own, and zero means "not given" in every field.
const SLACK_BYTES: usize = 512;

/// A struct of the C API, zero but for its size, with room for fields that this crate does not know.
#[repr(C)]
pub(crate) struct Padded<T> {
    pub(crate) args: T,
    slack: [u64; SLACK_BYTES / 8],
}

impl<T: CStruct> Padded<T> {
    pub(crate) fn new() -> Self {
        // SAFETY: zero is a valid value of `T` (contract of CStruct) and of integers.
        let mut padded: Self = unsafe { mem::zeroed() };
        let pointer: *mut T = &mut padded.args;
        // SAFETY: `T` starts with `struct_size: usize` (contract of CStruct), and the pointer is that of a live value.
        unsafe { pointer.cast::<usize>().write(mem::size_of::<Self>()) };
        padded
    }

    /// The struct as the plugin gets it: the pointer may be used for all of the padded size.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        (self as *mut Self).cast()
    }
}

/// The table of functions of a loaded plugin. Plugins are never unloaded, so it lives as long as the process.
#[derive(Clone, Copy)]
pub(crate) struct Api(&'static sys::PJRT_Api);

// SAFETY: the table is constant, and the C API is thread-safe unless a function says otherwise.
unsafe impl Send for Api {}
// SAFETY: as above.
unsafe impl Sync for Api {}

/// Calls function `$name` of the table `$api` with the padded struct `$args`: `call!(api, PJRT_Client_Create, args)?`.
///
/// Unsafe: every pointer in `$args` must be valid for what the function does with it.
macro_rules! call {
    ($api:expr, $name:ident, $args:expr) => {{
        let api = $api;
        match api.entry(std::mem::offset_of!(crate::sys::PJRT_Api, $name), |table| table.$name) {
            Some(function) => api.check(stringify!($name), function($args.as_mut_ptr())),
            None => Err(crate::Error::MissingFunction(stringify!($name))),
        }
    }};
}
pub(crate) use call;

impl Api {
    /// # Safety
    /// `table` is what a plugin's `GetPjrtApi` returned, and the plugin is never unloaded.
    pub(crate) unsafe fn new(table: *const sys::PJRT_Api) -> Self {
        // SAFETY: promised by the caller. An older plugin's table may be shorter than the type says, so only fields
        // within its size are read: see `entry`.
        Self(unsafe { &*table })
    }

    /// Major and minor version of the API that the plugin was built for.
    pub(crate) fn version(self) -> (i32, i32) {
        (self.0.pjrt_api_version.major_version, self.0.pjrt_api_version.minor_version)
    }

    /// An entry of the table, `None` if it lies beyond the plugin's table or is null.
    pub(crate) fn entry<F>(self, offset: usize, read: impl Fn(&sys::PJRT_Api) -> Option<F>) -> Option<F> {
        (offset + mem::size_of::<usize>() <= self.0.struct_size).then(|| read(self.0)).flatten()
    }

    /// Turns what a function returned into a result, and frees it.
    pub(crate) fn check(self, call: &'static str, error: *mut sys::PJRT_Error) -> Result<()> {
        if error.is_null() {
            return Ok(());
        }
        let mut code = Padded::<sys::PJRT_Error_GetCode_Args>::new();
        code.args.error = error;
        let mut message = Padded::<sys::PJRT_Error_Message_Args>::new();
        message.args.error = error;
        let mut destroy = Padded::<sys::PJRT_Error_Destroy_Args>::new();
        destroy.args.error = error;
        // SAFETY: `error` is the live error that the plugin has just handed out. Its message lives until it is
        // destroyed, and is copied before. An error while asking for the code is itself freed nowhere: there is no
        // way to tell what it is.
        let text = unsafe {
            if let Some(function) = self.0.PJRT_Error_GetCode {
                function(code.as_mut_ptr());
            }
            if let Some(function) = self.0.PJRT_Error_Message {
                function(message.as_mut_ptr());
            }
            let text = to_string(message.args.message, message.args.message_size);
            if let Some(function) = self.0.PJRT_Error_Destroy {
                function(destroy.as_mut_ptr());
            }
            text
        };
        Err(Error::Plugin { call, code: ErrorCode::from_c(code.args.code), message: text })
    }

    /// Waits for an event and frees it. A null event counts as done.
    ///
    /// # Safety
    /// `event` is null or an event that the plugin handed out and that is not used afterwards.
    pub(crate) unsafe fn await_event(self, event: *mut sys::PJRT_Event) -> Result<()> {
        if event.is_null() {
            return Ok(());
        }
        let mut wait = Padded::<sys::PJRT_Event_Await_Args>::new();
        wait.args.event = event;
        let mut destroy = Padded::<sys::PJRT_Event_Destroy_Args>::new();
        destroy.args.event = event;
        // SAFETY: the event is live, promised by the caller.
        unsafe {
            let result = call!(self, PJRT_Event_Await, wait);
            call!(self, PJRT_Event_Destroy, destroy)?;
            result
        }
    }
}

/// Copies text out of a plugin, replacing what is not UTF-8.
///
/// # Safety
/// `data` is valid for reads of `size` bytes, or `size` is 0.
pub(crate) unsafe fn to_string(data: *const c_char, size: usize) -> String {
    // SAFETY: promised by the caller.
    String::from_utf8_lossy(unsafe { slice(data.cast::<u8>(), size) }).into_owned()
}

/// A slice from C, where an empty one may have a null pointer.
///
/// # Safety
/// `data` is valid for reads of `len` elements while the result is used, or `len` is 0.
pub(crate) unsafe fn slice<'a, T>(data: *const T, len: usize) -> &'a [T] {
    if len == 0 {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// A C pointer and length of `text`, valid while `text` is.
pub(crate) fn text_arg(text: &str) -> (*const c_char, usize) {
    (text.as_ptr().cast(), text.len())
}

/// An index of C as one of Rust; what C should not return (a negative one) becomes 0.
pub(crate) fn to_usize(value: c_int) -> usize {
    usize::try_from(value).unwrap_or(0)
}
