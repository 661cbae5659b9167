# As in the authors' code: resized to 256, cropped to 224.
_base_ = './cub_boxes_bs16_224.py'

train_pipeline = [
    dict(type='mmaib.CheckFiles'),
    dict(type='LoadImageFromFile'),
    dict(type='mmaib.CropToBox'),
    dict(type='Resize', scale=(256, 256)),
    dict(type='RandomCrop', crop_size=224),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='mmaib.CropToBox', missing='whole'),
    dict(type='Resize', scale=(256, 256)),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
