use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use sft_tensor::HostTensor;

use super::flax_tree::place;
use super::{AtomicFile, WeightsError};
use crate::params::Param;

/// Arrays of more bytes are written in pieces, as flax does.
pub(super) const MAX_CHUNK_BYTES: usize = 1 << 30;
pub(super) const CHUNKED_KEY: &str = "__msgpack_chunked_array__";

/// The tree of a state file; keys are sorted as flax sorts them.
enum Node {
    Map(BTreeMap<String, Node>),
    Leaf(Leaf),
}

#[derive(Clone, Copy)]
struct Leaf {
    param: usize,
    part: usize,
    transposed: bool,
}

fn tree(params: &[Param]) -> Node {
    let mut root = Node::Map(BTreeMap::new());
    let mut insert = |name: &str, param: usize, part: usize| {
        let place = place(name);
        let mut node = &mut root;
        for key in &place.path {
            let Node::Map(map) = node else { unreachable!("no tensor's path leads through another's") };
            node = map.entry(key.clone()).or_insert_with(|| Node::Map(BTreeMap::new()));
        }
        *node = Node::Leaf(Leaf { param, part, transposed: place.transposed });
    };
    for (i, param) in params.iter().enumerate() {
        (0..param.parts()).for_each(|part| insert(&param.part_name(part), i, part));
    }
    if let (None, Some(embedding)) = (find(params, "lm_head.weight"), find(params, "model.embed_tokens.weight")) {
        // the reference never ties: its file always has a head
        insert("lm_head.weight", embedding, 0);
    }
    root
}

fn find(params: &[Param], name: &str) -> Option<usize> {
    params.iter().position(|p| p.name == name)
}

/// The order in which [`write_msgpack_state`] asks for parts, as (index into `params`, part). The embedding of a tied
/// model comes twice: once as the head.
pub fn msgpack_order(params: &[Param]) -> Vec<(usize, usize)> {
    fn walk(node: &Node, order: &mut Vec<(usize, usize)>) {
        match node {
            Node::Map(map) => map.values().for_each(|node| walk(node, order)),
            Node::Leaf(leaf) => order.push((leaf.param, leaf.part)),
        }
    }
    let mut order = Vec::new();
    walk(&tree(params), &mut order);
    order
}

/// Writes the parameters as flax's `msgpack_serialize({"step": step, "params": tree})` does, one part after the other:
/// `part(param, number)` gives each whole, in the order of [`msgpack_order`].
pub fn write_msgpack_state<E: From<WeightsError>>(
    path: &Path,
    params: &[Param],
    step: u64,
    mut part: impl FnMut(&Param, usize) -> Result<HostTensor, E>,
) -> Result<(), E> {
    let mut file = AtomicFile::create(path)?;
    let io = |e: std::io::Error| E::from(WeightsError::io(path, "writing")(e));
    let mut head = Vec::new();
    map_header(&mut head, 2);
    string(&mut head, "params");
    file.write_all(&head).map_err(io)?;
    write_node::<E>(&mut file, &tree(params), &mut |leaf: &Leaf| {
        let tensor = part(&params[leaf.param], leaf.part)?;
        Ok(if leaf.transposed { tensor.transposed() } else { tensor })
    })?;
    let mut tail = Vec::new();
    string(&mut tail, "step");
    unsigned(&mut tail, step);
    file.write_all(&tail).map_err(io)?;
    file.commit().map_err(E::from)
}

fn write_node<E: From<WeightsError>>(
    file: &mut AtomicFile,
    node: &Node,
    tensor: &mut dyn FnMut(&Leaf) -> Result<HostTensor, E>,
) -> Result<(), E> {
    let path = file.path().to_owned();
    let io = |e: std::io::Error| E::from(WeightsError::io(&path, "writing")(e));
    match node {
        Node::Map(map) => {
            let mut header = Vec::new();
            map_header(&mut header, map.len());
            file.write_all(&header).map_err(io)?;
            for (key, node) in map {
                let mut text = Vec::new();
                string(&mut text, key);
                file.write_all(&text).map_err(io)?;
                write_node(file, node, tensor)?;
            }
            Ok(())
        }
        Node::Leaf(leaf) => write_array(file, &tensor(leaf)?, MAX_CHUNK_BYTES).map_err(io),
    }
}

/// An array, in pieces if it has more than `max_bytes`.
fn write_array(out: &mut impl Write, tensor: &HostTensor, max_bytes: usize) -> std::io::Result<()> {
    let dtype = tensor.dtype().name();
    if tensor.bytes().len() <= max_bytes {
        return write_ndarray(out, tensor.shape(), dtype, tensor.bytes());
    }
    let item = tensor.dtype().size_bytes();
    let mut head = Vec::new();
    map_header(&mut head, 3);
    string(&mut head, CHUNKED_KEY);
    head.push(0xc3);
    string(&mut head, "shape");
    map_header(&mut head, tensor.shape().len());
    for (d, &n) in tensor.shape().iter().enumerate() {
        string(&mut head, &d.to_string());
        unsigned(&mut head, n as u64);
    }
    string(&mut head, "chunks");
    let chunks = tensor.bytes().chunks(max_bytes / item * item);
    map_header(&mut head, chunks.len());
    out.write_all(&head)?;
    for (i, chunk) in chunks.enumerate() {
        let mut key = Vec::new();
        string(&mut key, &i.to_string());
        out.write_all(&key)?;
        write_ndarray(out, &[chunk.len() / item], dtype, chunk)?;
    }
    Ok(())
}

/// Extension type 1: an array of shape, dtype name and bytes.
fn write_ndarray(out: &mut impl Write, shape: &[usize], dtype: &str, bytes: &[u8]) -> std::io::Result<()> {
    let mut payload = Vec::new();
    // writing to a vector cannot fail, and sizes are below 2^32 after chunking
    rmp::encode::write_array_len(&mut payload, 3).expect("a vector grows");
    rmp::encode::write_array_len(&mut payload, shape.len() as u32).expect("a vector grows");
    shape.iter().for_each(|&n| unsigned(&mut payload, n as u64));
    string(&mut payload, dtype);
    rmp::encode::write_bin_len(&mut payload, bytes.len() as u32).expect("a vector grows");
    let mut head = Vec::new();
    rmp::encode::write_ext_meta(&mut head, (payload.len() + bytes.len()) as u32, 1).expect("a vector grows");
    out.write_all(&head)?;
    out.write_all(&payload)?;
    out.write_all(bytes)
}

fn map_header(out: &mut Vec<u8>, len: usize) {
    rmp::encode::write_map_len(out, len as u32).expect("a vector grows");
}

fn string(out: &mut Vec<u8>, text: &str) {
    rmp::encode::write_str(out, text).expect("a vector grows");
}

fn unsigned(out: &mut Vec<u8>, value: u64) {
    rmp::encode::write_uint(out, value).expect("a vector grows");
}

#[cfg(test)]
mod tests {
    use sft_tensor::DType;

    use super::*;
    use crate::params::Init;
    use crate::weights::{MsgpackState, Source};

    fn param(name: &str, shape: &[usize]) -> Param {
        Param { name: name.into(), shape: shape.to_vec(), fsdp_dim: None, tp_dim: None, init: Init::Zeros }
    }

    #[test]
    fn the_worked_example_is_written_byte_for_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.msgpack");
        let params = [param("lm_head.weight", &[3, 2]), param("model.norm.weight", &[2])];
        write_msgpack_state::<WeightsError>(&path, &params, 3, |param, _| {
            Ok(match param.name.as_str() {
                // the kernel is the transposed matrix
                "lm_head.weight" => HostTensor::from_f32(&[3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]),
                _ => HostTensor::from_f32(&[2], &[1.0, 1.0]).to_dtype(DType::BF16).unwrap(),
            })
        })
        .unwrap();
        let hex: String = std::fs::read(&path).unwrap().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "82a6706172616d7382a76c6d5f6865616481a66b65726e656cc7260193920203a7666c6f61743332c418000000000000803f00000040\
             00004040000080400000a040a56d6f64656c81a46e6f726d81a57363616c65c71201939102a862666c6f61743136c404803f803fa473\
             74657003"
                .replace(' ', "")
        );
        let state = MsgpackState::open(&path).unwrap();
        assert_eq!((state.step(), state.shape("lm_head.weight")), (3, Some(vec![3, 2])));
        let block = state.read("lm_head.weight", &[1..3, 1..2]).unwrap();
        assert_eq!((block.shape(), block.to_f32_vec().unwrap()), ([2, 1].as_slice(), vec![4.0, 5.0]));
    }

    #[test]
    fn large_arrays_come_in_pieces() {
        let tensor = HostTensor::from_f32(&[3, 5], &(0..15).map(|i| i as f32).collect::<Vec<_>>());
        for (path, name) in [
            (["model", "embed_tokens", "embedding"], "model.embed_tokens.weight"),
            (["model", "down_proj", "kernel"], "model.down_proj.weight"),
        ] {
            let mut bytes = Vec::new();
            for key in ["params"].into_iter().chain(path) {
                map_header(&mut bytes, 1);
                string(&mut bytes, key);
            }
            write_array(&mut bytes, &tensor, 16).unwrap();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("s.msgpack");
            std::fs::write(&path, &bytes).unwrap();
            let state = MsgpackState::open(&path).unwrap();
            let expected = if name.contains("down") { tensor.transposed() } else { tensor.clone() };
            assert_eq!(state.shape(name).as_deref(), Some(expected.shape()));
            let [rows, columns] = expected.shape()[..] else { unreachable!("a matrix") };
            assert_eq!(state.read(name, &[0..rows, 0..columns]).unwrap(), expected);
            for block in [[1..3, 1..3], [2..3, 0..columns], [0..rows, 2..3], [1..1, 0..0]] {
                assert_eq!(state.read(name, &block).unwrap(), expected.slice(&block));
            }
        }
    }

    #[test]
    fn the_order_names_the_tied_head_first() {
        let params = [param("model.embed_tokens.weight", &[3, 2]), param("model.norm.weight", &[2])];
        assert_eq!(msgpack_order(&params), [(0, 0), (0, 0), (1, 0)]);
    }

    #[test]
    fn an_error_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.msgpack");
        let fail = |p: &Param, _| Err(WeightsError::tensor(&path, &p.name, "lost"));
        assert!(write_msgpack_state::<WeightsError>(&path, &[param("model.norm.weight", &[2])], 1, fail).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
