"""Each rule of tools/tidy.py finds what it is for, and leaves good code alone."""

from pathlib import Path

import pytest
from rules import cpp, docs, environment, layers, names, options, ratchet, shape
from rules.tree import Finding, Tree

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def make_tree(tmp_path):
    def make(**files):
        for path, text in files.items():
            path = tmp_path / path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Tree(tmp_path)

    return lambda files: make(**files)


def rules_of(findings):
    return {finding.rule for finding in findings}


HEADER = "// A thing. Any thread.\n#pragma once\n"


def test_good_files_pass(make_tree):
    tree = make_tree(
        {
            "inrush/core/thing.h": HEADER + "#include <span>\n\nint thing(int offset);\n",
            "inrush/core/thing.cpp": '#include "inrush/core/thing.h"\nconstexpr int kOne = 1;\n',
            "python/inrush/a.py": '"""A."""\n\n\ndef f(a, *, b=1, c=1, d=1, e=1, g=1): ...\n',
        }
    )
    for check in (shape.check, names.check, layers.check, environment.check, options.check):
        assert not [f for f in check(tree) if "except" not in f.message]


@pytest.mark.parametrize(
    ("path", "text", "rule"),
    [
        ("a.h", HEADER + "\n" * 150, "file-length"),
        ("a.cpp", "\n" * 501, "file-length"),
        ("a.cpp", "int a;" + " " * 100 + "\n", "line-length"),
        ("a.cpp", "// ---------- part two\n", "banner"),
        ("a.cpp", "int f() {\n" + "  g();\n" * 70 + "}\n", "function-length"),
        ("a.cpp", "int f(int a, int b, int c, int d, int e, int f) { return 1; }\n", "parameters"),
        ("a.h", HEADER + "int f(A<int, 2> a, int b, int c, int d, int e, int f);\n", "parameters"),
        ("a.h", "#pragma once\n", "header-comment"),
        ("a.h", "// x\n" * 9 + "#pragma once\n", "header-comment"),
        ("a.h", "// x\n\n#ifndef A\n", "header-guard"),
        ("a.cpp", "#ifdef CUDA\n#endif\n", "conditional"),
        ("a.cpp", "#define SQUARE(x) ((x) * (x))\n", "macro"),
        ("inrush/base/a.cpp", "static int count = 0;\n", "global"),
        ("inrush/base/a.cpp", "std::mutex lock;\n", "global"),
        ("inrush/base/a.cpp", "int f() {\n  static int count = 0;\n}\n", "global"),
        ("a.py", "x = 1\n", "header-comment"),
        ("a.py", '"""A."""\n\n\ndef f(a, b, c, d, e, g): ...\n', "parameters"),
        ("a.py", '"""A."""\n\n\ndef f():\n' + "    g()\n" * 70, "function-length"),
        ("a.cpp", "// TODO: the rest\n", "marker"),
    ],
)
def test_shape_finds(make_tree, path, text, rule):
    assert rule in rules_of(shape.check(make_tree({path: text})))


def test_an_interface_has_six_methods(make_tree):
    methods = "".join(f"  virtual void m{n}() = 0;\n" for n in range(7))
    tree = make_tree({"a.h": HEADER + f"class Thing {{\n public:\n{methods}}};\n"})
    (finding,) = (f for f in shape.check(tree) if f.rule == "interface")
    assert finding.measure == 7


def test_docstrings_do_not_count_as_lines_of_a_function(make_tree):
    docstring = '    """Says.\n\n' + "    word\n" * 80 + '    """\n'
    tree = make_tree({"a.py": '"""A."""\n\n\ndef f():\n' + docstring + "    return 1\n"})
    assert not list(shape.check(tree))


CPP = r"""
namespace n {
// int commented(int a);
#define MACRO(a, b) { a }
template <typename T, typename U>
class Box : public Base<T> {
 public:
  explicit Box(int a, std::map<int, int> b) : a_(a), b_{std::move(b)}, c_{1, 2} {}
  Box(const Box&) = delete;
  [[nodiscard]] bool has(const T& t) const { return t == a_ && "}{" != s; }
  void operator()(int a) const noexcept;
  std::vector<int> pick(std::function<void(int, int)> call = [](int, int) {}, int b = {}) const;
 private:
  int a_ = f(1, 2);
  std::vector<int> b_{1, 2};
};

const char* text() {
  auto inner = [&](int a, int b) {
    return R"x( } )x";
  };
  return inner(1, 2);
}

int Box<int, int>::sum(int first,
                       int second) {
  if (first) { return 1'000; }
  return second;
}
}  // namespace n
"""


def test_cpp_functions_are_found_with_lengths_and_parameters():
    found = {f.name: (f.last_line - f.first_line + 1, f.parameters) for f in cpp.functions(CPP)}
    assert found["has"] == (1, 1)
    assert found["pick"] == (1, 2)
    assert found["text"] == (6, 0)
    assert found["sum"] == (5, 2)
    assert found["operator()"][1] == 1
    assert "commented" not in found
    assert "inner" not in found
    assert {f.parameters for f in cpp.functions(CPP) if f.name == "Box"} == {2, 1}


@pytest.mark.parametrize("name", ["BlobManager", "read_util", "new_size", "IoContext", "parse_v2"])
def test_names_that_say_nothing_are_found(name):
    assert names.banned_words(name)


@pytest.mark.parametrize("name", ["newline", "renew", "implicit", "contextual", "PyRef", "v20"])
def test_words_that_only_contain_one_are_not(name):
    assert not names.banned_words(name)


def test_files_are_named_too(make_tree):
    tree = make_tree({"inrush/base/string_utils.h": HEADER, "inrush/base/Big.cpp": ""})
    assert {f.path for f in names.check(tree)} == set(tree.paths)


@pytest.mark.parametrize(
    ("path", "included", "wrong"),
    [
        ("inrush/core/a.h", "inrush/base/fd.h", True),
        ("inrush/base/a.h", "inrush/core/error.h", False),
        ("inrush/engines/a.cpp", "inrush/stores/stores.h", True),
        ("inrush/engines/a.cpp", "inrush/engines/engines.h", False),
        ("inrush/policy/a.cpp", "inrush/load.h", True),
        ("inrush/checkpoint.cpp", "inrush/stores/stores.h", False),
        ("tests/a.cpp", "inrush/load.h", False),
        ("inrush/other/a.cpp", "inrush/core/error.h", True),
    ],
)
def test_includes_point_down(make_tree, path, included, wrong):
    tree = make_tree({included: HEADER, path: f'#include "{included}"\n'})
    found = [f for f in layers.check(tree) if f.path == path]
    assert bool(found) == wrong


def test_installed_headers_reach_only_installed_ones(make_tree):
    tree = make_tree(
        {
            "inrush/load.h": '#include "inrush/base/fd.h"\n#include <fmt/format.h>\n',
            "inrush/base/fd.h": HEADER,
        }
    )
    assert [f.rule for f in layers.check(tree) if f.path == "inrush/load.h"] == ["public"] * 2


def test_the_environment_is_read_in_one_place(make_tree):
    tree = make_tree(
        {
            "inrush/base/environment.cpp": 'auto a = getenv("A");\n',
            "inrush/load/load.cpp": 'auto a = getenv("A");  \n',
            "python/inrush/_options.py": "import os\n\nos.environ\n",
            "python/inrush/other.py": "import os\n\nos.environ\n",
            "inrush/base/fd.cpp": '// getenv\nauto a = "getenv";\n',
        }
    )
    paths = {f.path for f in environment.check(tree)}
    assert paths == {"inrush/load/load.cpp", "python/inrush/other.py"}


def test_a_word_missing_anywhere_is_found(make_tree):
    home = 'WORDS = ("device", "page_cache")\n\n\nclass OptionWords:\n    device: str\n'
    tree = make_tree(
        {
            "python/inrush/_options.py": home,
            "python/inrush/cli/load.py": "def load(device): ...\n\n\ndef of(page_cache): ...\n",
            "docs/options.md": "`device` `--device` `INRUSH_DEVICE` `page_cache` `--page-cache`",
        }
    )
    messages = [f.message for f in options.check(tree)]
    assert any("OptionWords" in message for message in messages)
    assert any("--page-cache is missing" in message for message in messages)
    assert any("INRUSH_PAGE_CACHE" in message for message in messages)
    assert len(messages) == 3


def test_dead_links_are_found(make_tree):
    page = (
        "[a](b.md) [c](c.md) [d](#one-two) [e](#gone) `[x](y.md)` [w](https://x.y)\n\n# One, two\n"
    )
    tree = make_tree({"docs/a.md": page, "docs/b.md": ""})
    assert [f.message.split(":")[0] for f in docs.check(tree)] == ["c.md", "#gone"]


def test_the_tree_is_the_one_on_the_disk(make_tree):
    page = "## The tree\n\n```\nMakefile\ninrush/\n  load.h gone.h  remark\n  core/   words\n```\n"
    tree = make_tree(
        {
            "ARCHITECTURE.md": page,
            "Makefile": "",
            "inrush/load.h": "",
            "inrush/core/a.h": "",
            "inrush/base/a.h": "",
        }
    )
    messages = [f.message for f in docs.check(tree)]
    assert messages == [
        "inrush/gone.h is not on the disk",
        "inrush/base/ is not in the tree",
        "ARCHITECTURE.md is not in the tree",
    ]


@pytest.mark.parametrize(
    ("entries", "measure", "left"),
    [
        ("", 80, ["file-length"]),
        ("file-length a.cpp 80\n", 80, []),
        ("file-length a.cpp 79\n", 80, ["file-length"]),
        ("file-length a.cpp 90\n", 80, ["ratchet"]),
        ("file-length a.cpp 80\nfile-length b.cpp 80\n", 80, ["ratchet"]),
    ],
)
def test_exceptions_only_shrink(make_tree, entries, measure, left):
    tree = make_tree({ratchet.FILE: entries})
    found = ratchet.apply([Finding("a.cpp", 1, "file-length", "", measure=measure)], tree)
    assert [f.rule for f in found] == left
