//! A model in memory: graphs of nodes with typed attributes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::element_type::ElementType;
use crate::tensor::Tensor;

/// An ONNX model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    /// The versions of the operator sets by domain. The standard domain is `""`.
    pub opsets: HashMap<String, i64>,
    /// The functions of the model.
    pub functions: Vec<Function>,
    /// The main graph.
    pub graph: Graph,
}

/// A function: an operator that the model defines itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Function {
    /// The domain of the operator.
    pub domain: String,
    /// The name of the operator.
    pub name: String,
    /// Distinguishes functions of one name; usually empty.
    pub overload: String,
    /// The attributes without a default value.
    pub attributes: Vec<String>,
    /// The attributes with their default values.
    pub defaults: BTreeMap<String, Attribute>,
    /// The versions of the operator sets that the body uses.
    pub opsets: HashMap<String, i64>,
    /// The body. Its inputs and outputs have no types.
    pub body: Graph,
}

/// A graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// The inputs. In a main graph, one with an initializer of the same name may be left out.
    pub inputs: Vec<ValueInfo>,
    /// The outputs.
    pub outputs: Vec<ValueInfo>,
    /// The constants by name.
    pub initializers: BTreeMap<String, Arc<Tensor>>,
    /// The types of inner values, as far as the file states them.
    pub value_info: Vec<ValueInfo>,
    /// The nodes, each after the nodes whose outputs it reads.
    pub nodes: Vec<Node>,
    /// The values that no later node reads, for each node.
    pub(crate) last_reads: Vec<Vec<String>>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// The name; may be empty.
    pub name: String,
    /// The domain of the operator; the standard one is `""`.
    pub domain: String,
    /// The name of the operator.
    pub operator: String,
    /// Distinguishes functions of one name; usually empty.
    pub overload: String,
    /// The names of the inputs; the name of an omitted one is empty.
    pub inputs: Vec<String>,
    /// The names of the outputs; the name of an omitted one is empty.
    pub outputs: Vec<String>,
    /// The attributes by name.
    pub attributes: BTreeMap<String, Attribute>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of the types")]
pub enum Attribute {
    Int(i64),
    Float(f32),
    Text(String),
    Tensor(Arc<Tensor>),
    Graph(Arc<Graph>),
    Type(ValueType),
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Texts(Vec<String>),
    Tensors(Vec<Arc<Tensor>>),
    Graphs(Vec<Arc<Graph>>),
    /// The attribute of the enclosing function with this name.
    Reference(String),
}

impl Attribute {
    /// Returns the number of elements, or of bytes of strings, that an operator reads.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Tensor(tensor) => tensor.len(),
            Self::Ints(values) => values.len(),
            Self::Floats(values) => values.len(),
            Self::Texts(texts) => texts.iter().map(|text| text.len() + 1).sum(),
            Self::Tensors(tensors) => tensors.iter().map(|tensor| tensor.len()).sum(),
            _ => 1,
        }
    }
}

/// A name with its type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ValueInfo {
    /// The name of the value.
    pub name: String,
    /// The type, if the file states it.
    pub value_type: Option<ValueType>,
}

/// The type of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueType {
    /// A tensor.
    Tensor {
        /// The element type.
        element: ElementType,
        /// The shape, if the file states it.
        shape: Option<Vec<Dimension>>,
    },
    /// A sequence of values of a type.
    Sequence(Box<ValueType>),
    /// An optional value of a type.
    Optional(Box<ValueType>),
    /// A map, or a type that the file does not state.
    Other,
}

/// The size of an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dimension {
    /// A known size.
    Size(usize),
    /// A size with a name.
    Named(String),
    /// An unknown size.
    Unknown,
}

impl Node {
    /// Returns the name, or the name of the first output if there is none.
    pub fn label(&self) -> &str {
        if self.name.is_empty() {
            self.outputs.iter().find(|name| !name.is_empty()).map_or("", String::as_str)
        } else {
            &self.name
        }
    }

    /// Returns the operator, with its domain if that is not the standard one.
    pub fn qualified_operator(&self) -> String {
        match self.domain.as_str() {
            "" => self.operator.clone(),
            domain => format!("{domain}::{}", self.operator),
        }
    }

    /// Returns the graphs of the attributes.
    pub fn subgraphs(&self) -> impl Iterator<Item = &Arc<Graph>> {
        self.attributes.values().flat_map(|attribute| match attribute {
            Attribute::Graph(graph) => std::slice::from_ref(graph),
            Attribute::Graphs(graphs) => graphs,
            _ => &[],
        })
    }

    /// Returns the names that the node reads, also in its subgraphs.
    pub fn reads(&self) -> HashSet<&str> {
        let mut names: HashSet<&str> = self.inputs.iter().map(String::as_str).collect();
        names.extend(self.subgraphs().flat_map(|graph| graph.free_names()));
        names.remove("");
        names
    }
}

impl Graph {
    /// Returns the names that the graph reads from the enclosing graphs.
    pub fn free_names(&self) -> HashSet<&str> {
        let mut defined: HashSet<&str> = self.inputs.iter().map(|i| i.name.as_str()).collect();
        defined.extend(self.initializers.keys().map(String::as_str));
        defined.extend(self.nodes.iter().flat_map(|node| &node.outputs).map(String::as_str));
        let mut free: HashSet<&str> = self.nodes.iter().flat_map(Node::reads).collect();
        free.extend(self.outputs.iter().map(|output| output.name.as_str()));
        free.retain(|name| !defined.contains(name));
        free
    }

    /// Creates a graph and prepares it.
    pub fn new(
        inputs: Vec<ValueInfo>,
        outputs: Vec<ValueInfo>,
        initializers: BTreeMap<String, Arc<Tensor>>,
        nodes: Vec<Node>,
    ) -> Self {
        let mut graph = Self { inputs, outputs, initializers, nodes, ..Self::default() };
        graph.prepare();
        graph
    }

    /// Sorts the nodes so that each follows those it reads from, and finds the last reads. Nodes
    /// keep their order where that is possible.
    pub fn prepare(&mut self) {
        self.sort();
        let kept: HashSet<&str> = self.outputs.iter().map(|output| output.name.as_str()).collect();
        let mut seen: HashSet<&str> = HashSet::new();
        let mut last_reads = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate().rev() {
            let outputs = node.outputs.iter().map(String::as_str).filter(|name| !name.is_empty());
            for name in node.reads().into_iter().chain(outputs) {
                if !kept.contains(name) && seen.insert(name) {
                    last_reads[index].push(name.to_string());
                }
            }
        }
        self.last_reads = last_reads;
    }

    fn sort(&mut self) {
        let mut producers: HashMap<&str, usize> = HashMap::new();
        for (index, node) in self.nodes.iter().enumerate() {
            for output in node.outputs.iter().filter(|name| !name.is_empty()) {
                producers.entry(output).or_insert(index);
            }
        }
        let mut waiting = vec![0usize; self.nodes.len()];
        let mut readers = vec![Vec::new(); self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for name in node.reads() {
                if let Some(producer) = producers.get(name)
                    && *producer != index
                {
                    waiting[index] += 1;
                    readers[*producer].push(index);
                }
            }
        }
        let mut ready: std::collections::BTreeSet<usize> =
            (0..self.nodes.len()).filter(|index| waiting[*index] == 0).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(index) = ready.pop_first() {
            order.push(index);
            for reader in &readers[index] {
                waiting[*reader] -= 1;
                if waiting[*reader] == 0 {
                    ready.insert(*reader);
                }
            }
        }
        // Nodes of a cycle stay at the end; their evaluation reports the undefined input.
        order.extend((0..self.nodes.len()).filter(|index| waiting[*index] > 0));
        if !order.is_sorted() {
            let mut nodes: Vec<Option<Node>> =
                std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
            self.nodes = order.iter().filter_map(|index| nodes[*index].take()).collect();
        }
    }
}
