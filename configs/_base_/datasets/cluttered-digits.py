# Digits of scikit-learn between pieces of others on photographs, 48x48, made
# when they are needed; maps are evaluated against the digit's box.
data_preprocessor = dict(
    num_classes=10, mean=[127.0] * 3, std=[64.0] * 3, to_rgb=False)

train_pipeline = [dict(type='PackInputs')]
test_pipeline = [
    dict(
        type='PackInputs',
        meta_keys=('sample_idx', 'ori_shape', 'img_shape', 'gt_bboxes')),
]
train_dataloader = dict(
    batch_size=50,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='mmaib.ClutteredDigits',
        split='train',
        num_images=1200,
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=100,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmaib.ClutteredDigits',
        split='val',
        num_images=500,
        pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, ))
test_evaluator = val_evaluator
