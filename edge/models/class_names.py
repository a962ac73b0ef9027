"""Class names of the data sets that most public models were trained on."""

from __future__ import annotations

_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
_VOC = (
    "aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,person,pottedplant,"
    "sheep,sofa,train,tvmonitor"
)
COCO = tuple(_COCO.split(","))
VOC = tuple(_VOC.split(","))


def names_for(count: int, *, has_background: bool = False) -> tuple[str, ...]:
    """The usual names for this many classes, numbered ones where the count says nothing."""
    if count == len(COCO):
        return COCO
    if count == len(VOC):
        return VOC
    if count == len(VOC) + 1 and has_background:
        return ("background", *VOC)
    return tuple(f"class {index}" for index in range(count))
