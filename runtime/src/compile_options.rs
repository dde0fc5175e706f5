//! What a program is compiled for, in the form that plugins read: XLA's `CompileOptionsProto`.

use std::collections::HashMap;

use prost::Message;

use crate::{Error, OptionValue, Result};

/// The devices that a program is compiled for, and flags for the compiler.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompileOptions {
    /// Copies of the program that run together, one a device.
    pub num_replicas: usize,
    /// The global id of the device that runs each replica, `[num_replicas]`. Ids of devices of other processes are
    /// allowed; every process compiles the same program for the same assignment and executes its own replicas.
    pub device_assignment: Vec<i64>,
    /// Flags of XLA for this program alone, such as `("xla_cpu_enable_fast_math", Bool(false))`.
    pub xla_flags: Vec<(String, OptionValue)>,
}

impl CompileOptions {
    /// One replica on device `device_id`.
    pub fn single(device_id: i64) -> Self {
        Self::replicated(vec![device_id])
    }

    /// One replica on each of the devices, in this order.
    pub fn replicated(device_assignment: Vec<i64>) -> Self {
        Self { num_replicas: device_assignment.len(), device_assignment, xla_flags: Vec::new() }
    }

    /// The serialized `CompileOptionsProto`.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        if self.num_replicas == 0 || self.device_assignment.len() != self.num_replicas {
            return Err(Error::InvalidArgument(format!(
                "a program of {} replicas needs as many devices, got {}",
                self.num_replicas,
                self.device_assignment.len()
            )));
        }
        let mut sorted = self.device_assignment.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Error::InvalidArgument(format!("device {} is assigned to more than one replica", pair[0])));
        }
        let num_replicas = self.num_replicas as i64;
        let options = CompileOptionsProto {
            executable_build_options: Some(ExecutableBuildOptionsProto {
                device_ordinal: -1, // The device assignment decides.
                num_replicas,
                num_partitions: 1,
                device_assignment: Some(DeviceAssignmentProto {
                    replica_count: num_replicas as i32,
                    computation_count: 1,
                    computation_devices: vec![ComputationDevice { replica_device_ids: self.device_assignment.clone() }],
                }),
            }),
            env_option_overrides: self
                .xla_flags
                .iter()
                .map(|(name, value)| Ok((name.clone(), OptionOverrideProto { value: Some(flag(name, value)?) })))
                .collect::<Result<_>>()?,
        };
        Ok(options.encode_to_vec())
    }
}

fn flag(name: &str, value: &OptionValue) -> Result<FlagValue> {
    Ok(match value {
        OptionValue::Str(value) => FlagValue::StringField(value.clone()),
        OptionValue::Bool(value) => FlagValue::BoolField(*value),
        OptionValue::Int(value) => FlagValue::IntField(*value),
        OptionValue::Float(value) => FlagValue::DoubleField(f64::from(*value)),
        OptionValue::IntList(_) => {
            return Err(Error::InvalidArgument(format!("XLA flag {name} cannot be a list of integers")))
        }
    })
}

// Excerpts of xla/pjrt/proto/compile_options.proto and xla/xla_data.proto; field numbers as there.

#[derive(Clone, PartialEq, Message)]
struct CompileOptionsProto {
    #[prost(message, optional, tag = "3")]
    executable_build_options: Option<ExecutableBuildOptionsProto>,
    #[prost(map = "string, message", tag = "7")]
    env_option_overrides: HashMap<String, OptionOverrideProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OptionOverrideProto {
    #[prost(oneof = "FlagValue", tags = "1, 2, 3, 4")]
    value: Option<FlagValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(clippy::enum_variant_names)] // The names of the fields in the .proto file.
enum FlagValue {
    #[prost(string, tag = "1")]
    StringField(String),
    #[prost(bool, tag = "2")]
    BoolField(bool),
    #[prost(int64, tag = "3")]
    IntField(i64),
    #[prost(double, tag = "4")]
    DoubleField(f64),
}

#[derive(Clone, PartialEq, Message)]
struct ExecutableBuildOptionsProto {
    #[prost(int64, tag = "1")]
    device_ordinal: i64,
    #[prost(int64, tag = "4")]
    num_replicas: i64,
    #[prost(int64, tag = "5")]
    num_partitions: i64,
    #[prost(message, optional, tag = "9")]
    device_assignment: Option<DeviceAssignmentProto>,
}

#[derive(Clone, PartialEq, Message)]
struct DeviceAssignmentProto {
    #[prost(int32, tag = "1")]
    replica_count: i32,
    #[prost(int32, tag = "2")]
    computation_count: i32,
    #[prost(message, repeated, tag = "3")]
    computation_devices: Vec<ComputationDevice>,
}

#[derive(Clone, PartialEq, Message)]
struct ComputationDevice {
    #[prost(int64, repeated, tag = "1")]
    replica_device_ids: Vec<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_format_is_that_of_the_proto() {
        let bytes = CompileOptions::replicated(vec![0, 2048]).encode().unwrap();
        let minus_one = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        let mut expected = vec![3 << 3 | 2, 28, 1 << 3];
        expected.extend(minus_one);
        expected.extend([4 << 3, 2, 5 << 3, 1, 9 << 3 | 2, 11, 1 << 3, 2, 2 << 3, 1, 3 << 3 | 2, 5, 1 << 3 | 2, 3]);
        expected.extend([0, 0x80, 0x10]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn an_assignment_that_does_not_fit_is_refused() {
        let too_few = CompileOptions { num_replicas: 2, device_assignment: vec![0], xla_flags: vec![] };
        assert!(too_few.encode().unwrap_err().to_string().contains("2 replicas"));
        let twice = CompileOptions::replicated(vec![1, 3, 1]);
        assert_eq!(twice.encode().unwrap_err().to_string(), "device 1 is assigned to more than one replica");
        assert!(CompileOptions::default().encode().is_err());
    }
}
