# Every target works on a fresh machine: what it needs is set up first, in .venv.
PYTHON ?= python3
REQUIRE ?= ort
EXTRAS ?= export,cpu,rtx,report,serve,triton,ray,dev,frameworks
BIN := .venv/bin
# cmake and ninja come from the environment too: a machine needs Python and a compiler only.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
CXX_SOURCES := $(shell git ls-files 'plugins/**/*.h' 'plugins/**/*.cc' 'plugins/**/*.inl' 'plugins/**/*.cu' 'plugins/**/*.cuh' 'tests/**/*.cc' 'tests/**/*.h' 'tests/**/*.cu' 'samples/**/*.h' 'samples/**/*.cc' 2>/dev/null | grep -v '\.gen\.h$$')
NATIVE := CMakeLists.txt pyproject.toml $(shell find plugins cmake -name '*.cc' -o -name '*.cu*' -o -name '*.h' -o -name '*.inl' -o -name '*.map' -o -name '*.cmake' -o -name CMakeLists.txt)

.PHONY: demo test check format setup new-op gates gpu bench clean

setup: .venv/.built  ## the virtual environment, with the package installed in place and its libraries built

.venv/.packages: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet 'scikit-build-core>=0.11' cmake ninja
	$(BIN)/pip install --quiet --no-build-isolation --config-settings=cmake.define.DEPLOYDCN_WERROR=ON --editable '.[$(EXTRAS)]'
	touch $@

.venv/.built: .venv/.packages $(NATIVE)
	$(BIN)/pip install --quiet --no-build-isolation --no-deps --config-settings=cmake.define.DEPLOYDCN_WERROR=ON --editable .
	touch $@

demo: setup  ## export a YOLO with deformable convolutions, verify it, draw its boxes
	$(BIN)/python samples/s02_yolov8n_dcn.py --output demo

test: setup check  ## everything
	$(BIN)/pytest -n 2 --dist loadfile -m "slow and not alone" --require=$(REQUIRE) --durations=15
	$(BIN)/pytest -m alone --require=$(REQUIRE)

check: setup  ## lint, types and the fast tests: under a minute
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/clang-format --dry-run -Werror $(CXX_SOURCES)
	$(BIN)/python -m deploydcn.codegen --check
	$(BIN)/mypy
	$(BIN)/pytest -n 2 -m "not slow" --require=$(REQUIRE)

gates: setup  ## compile the kernels for every GPU architecture and check what the compiler made of them
	$(BIN)/cmake -S . -B build/gates -G Ninja -DDEPLOYDCN_CUDA=ON -DDEPLOYDCN_CUDA_ARCHITECTURES=all
	$(BIN)/cmake --build build/gates --target deploydcn_trt
	$(BIN)/python -m tests.gates.gates build/gates/plugins/libdeploydcn_trt.so

bench: setup  ## time the CPU kernels against ONNX Runtime, torchvision, OpenVINO and plain convolutions
	$(BIN)/pip install --quiet openvino
	$(BIN)/deploydcn bench --threads 1,2 -o build/bench.json --plot build/bench.png --markdown build/bench.md

gpu: setup  ## everything that needs a GPU: engines, numerics, timing; says so when there is none
	$(BIN)/python -m tests.gpu

format: setup  ## rewrite sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_SOURCES)

new-op: setup  ## make new-op NAME=MyOp: a skeleton operator that compiles and passes its tests
	$(BIN)/python -m deploydcn.new_op $(NAME)
	$(MAKE) setup

clean:
	rm -rf .venv build demo
