"""`LayerList[T]`: `nn.ModuleList` with a static element type; at run time it is nn.ModuleList."""

from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

    Layer = TypeVar("Layer", bound=nn.Module)

    class LayerList(nn.ModuleList, Generic[Layer]):
        """`nn.ModuleList` whose elements have one type."""

        def __iter__(self) -> Iterator[Layer]: ...
        @overload  # type: ignore[override]  # torch has one signature for both
        def __getitem__(self, index: int) -> Layer: ...
        @overload
        def __getitem__(self, index: slice) -> "LayerList[Layer]": ...
        def __getitem__(self, index: int | slice) -> Any: ...

else:
    LayerList = nn.ModuleList
